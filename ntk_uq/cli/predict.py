"""``ntk-uq predict``: the rows of a table, by a model that fit saved."""

import argparse
from pathlib import Path
from typing import Any

from ntk_uq.cli.network import add_network, own_network
from ntk_uq.cli.options import STATUS, add_reading, check_output, level

__all__ = ["add_parser"]

_EXAMPLES = (
    """\
examples:
  ntk-uq predict model.ntk test.csv -o predictions.csv
  ntk-uq predict model.ntk new.csv --keep id -o predictions.csv
  cat new.csv | ntk-uq predict model.ntk - -o - | sort -t, -k6 -g

Columns are found by their names, in any order; columns that the model does not use are ignored.
What is written, one line for each row:
  classes   prediction, probability_<class>, total_uncertainty, aleatoric and epistemic (nats;
            total = aleatoric + epistemic), prediction_set, classes separated by "|", if the model
            was fitted with --conformal, and decision, a class or "reject", if with --threshold,
            --cost or --reject
  numbers   prediction (the mean), std of an observation, epistemic_std (of the mean alone), and
            the interval from lower to upper
If the table has the target, scores are printed: log loss in nats, of two classes the area under the
ROC curve (AUC) and the average precision of the second, the share of rows whose set or interval
holds the target, and the mean size of the sets, class by class; and how good the decisions are.

"""
    + STATUS
)


def add_parser(commands: Any) -> None:
    """Add the command to the shell's."""
    parser = commands.add_parser(
        "predict",
        usage="%(prog)s MODEL FILE [-o FILE] [options]",
        help="predict the rows of a table by a model that fit saved",
        description="Predict the rows of a table, with uncertainties, by a model of ntk-uq fit.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    parser.add_argument("model", type=Path, metavar="MODEL", help="what ntk-uq fit wrote")
    parser.add_argument(
        "table", metavar="FILE", help='CSV with a header line, or Parquet; "-" is standard input'
    )
    parser.add_argument(
        "-o",
        "--output",
        default="predictions.csv",
        metavar="FILE",
        help='CSV, or Parquet by its name; "-" is standard output (default: predictions.csv)',
    )
    parser.add_argument(
        "--keep",
        action="append",
        default=[],
        metavar="COLUMN",
        help="copy a column of the table to the predictions; may be repeated",
    )
    add_network(parser)
    add_reading(parser)
    parser.add_argument(
        "--level",
        type=level,
        metavar="P",
        help="probability of the intervals of a regression that was fitted without --conformal "
        "(default: 0.9)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Predict the table's rows, and write the predictions."""
    if arguments.output != "-":
        check_output(Path(arguments.output), arguments.table, str(arguments.model))

    if not arguments.model.is_file():
        raise ValueError(f"there is no model {arguments.model}; ntk-uq fit writes one")

    from ntk_uq.persistence.opening import table_columns

    used = table_columns(arguments.model)

    import pandas as pd

    from ntk_uq.tables.places import check_columns
    from ntk_uq.tables.reading import decimal_points, read_table

    name = "standard input" if arguments.table == "-" else arguments.table
    table = read_table(arguments.table, separator=arguments.separator, missing=arguments.missing)
    check_columns(table, arguments.keep, name)
    check_columns(table, used, name, ", which the model was fitted to")
    kept = table[arguments.keep].reset_index(drop=True)

    from ntk_uq.persistence import load
    from ntk_uq.tables.writing import write_table

    network = own_network(arguments.network) if arguments.network else None
    try:
        model = load(arguments.model, architecture=network)
    except ValueError as error:
        if network is None and "its user's" in str(error):
            raise ValueError(
                f"{arguments.model} was fitted with --network, and files hold no code: give the "
                "same --network FILE.py:NAME again"
            ) from None
        raise
    if arguments.level is not None and (model.task, model.level) != ("regression", None):
        raise ValueError(
            "--level is for a regression that was fitted without --conformal; this is "
            + ("a classification" if model.task == "classification" else f"one at {model.level:g}")
        )
    if arguments.decimal == ",":
        of_numbers = {*model.numeric, *([model.target] if model.task == "regression" else [])}
        table = decimal_points(table, table.columns.intersection(list(of_numbers)), name)
    predictions = model.predict(table, level=arguments.level or 0.9, name=name)
    scores = model.scores(table, predictions, name=name)
    clash = [column for column in arguments.keep if column in predictions]
    if clash:
        raise ValueError(f"--keep {clash[0]}: the predictions have a column of that name")
    write_table(pd.concat([kept, predictions], axis=1), arguments.output)
    if arguments.output != "-":
        if scores:
            words = ", ".join(f"{score} {value:.4g}" for score, value in scores.items())
            print(f"Against the target {model.target!r} in {name}: {words}")
            coverage = model.coverage(table, predictions, name=name)
            if coverage is not None:
                print("Prediction sets by class:")
                print(coverage.to_string(float_format="{:.3f}".format))
        print(f"{len(predictions):,} predictions are in {arguments.output}")
