"""``ntk-uq fit``: a model of a table, saved."""

import argparse
from pathlib import Path
from typing import Any

from ntk_uq.cli.network import add_network, own_network
from ntk_uq.cli.options import (
    CRITERIA,
    STATUS,
    add_optional_count,
    add_reading,
    check_output,
    integer,
    level,
    reg_or_criterion,
)

__all__ = ["add_parser"]

# What the name of an estimator begins with, by producer; and options that only that one has, with
# the estimator's argument.
_PRODUCERS: dict[str, tuple[str, dict[str, str]]] = {
    "ntk": ("NTK", {"draws": "n_draws", "method": "method", "uncertainty": "uncertainty"}),
    "ensemble": ("Ensemble", {"members": "n_members", "uncertainty": "uncertainty"}),
    "bayes": (
        "Bayesian",
        {
            "sampler": "sampler",
            "chains": "num_chains",
            "warmup": "num_warmup",
            "samples": "num_samples",
        },
    ),
}

_EXAMPLES = (
    """\
examples:
  ntk-uq fit train.csv --target y -o model.ntk
  ntk-uq fit patients.csv --target outcome --conformal 0.9 --drop id --categorical ward
  ntk-uq fit houses.parquet --target price --task regression --uncertainty posterior
  ntk-uq fit train.csv --target y --producer ensemble --members 16 --reg 0.3
  ntk-uq fit export.csv --target y --separator ';' --decimal , --missing '?'

Empty cells are missing values: the column's median takes their place, and another column says
where they were. Text of few values is a category. Features are standardised. What has two readings,
as a date or a stray word among numbers, is refused with its line.

"""
    + STATUS
)


def add_parser(commands: Any) -> None:
    """Add the command to the shell's."""
    parser = commands.add_parser(
        "fit",
        usage="%(prog)s FILE --target COLUMN [-o MODEL] [options]",
        help="fit a model to a table and save it",
        description="Fit an ensemble or a posterior to a table of numbers and categories, and\n"
        "save it, together with what makes numbers of the columns, to one file.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)

    _add_data(parser.add_argument_group("data"))
    _add_model(parser.add_argument_group("model"))
    _add_output(parser.add_argument_group("output"))


def _add_data(data: Any) -> None:
    data.add_argument(
        "table", metavar="FILE", help='CSV with a header line, or Parquet; "-" is standard input'
    )
    data.add_argument("--target", metavar="COLUMN", required=True, help="column to predict")
    data.add_argument(
        "--task",
        choices=("auto", "classification", "regression"),
        default="auto",
        help="what the target holds; auto takes text and few distinct integers for classes, and "
        "says what it took (default: auto)",
    )
    data.add_argument(
        "--drop",
        action="append",
        default=[],
        metavar="COLUMN",
        help="leave out a column, such as a row's name; may be repeated",
    )
    data.add_argument(
        "--categorical",
        action="append",
        default=[],
        metavar="COLUMN",
        help="take numbers, or text with many values, as categories; may be repeated",
    )
    add_reading(data)


def _add_model(model: Any) -> None:
    model.add_argument(
        "--producer",
        choices=_PRODUCERS,
        default="ntk",
        help="ntk: the infinite ensemble; ensemble: finite networks; bayes: the posterior, sampled "
        "(default: ntk)",
    )
    model.add_argument(
        "--reg",
        type=reg_or_criterion,
        metavar="R",
        help='as in compare; ntk also takes "cv" and "evidence", which choose it (default: ntk '
        "chooses it and the depth, by cross-validation for classes and by the evidence for "
        "numbers; 1.0 for the others)",
    )
    model.add_argument(
        "--uncertainty",
        choices=("initialization", "posterior", "none"),
        help="whose spread, of ntk and ensemble: that of random initialisations, of the posterior, "
        "or none (default: initialization)",
    )
    model.add_argument(
        "--method",
        choices=("exact", "gaussian"),
        help="ntk by draws or in closed form (default: exact for classes, gaussian for numbers)",
    )
    add_network(model)
    add_optional_count(model, "--draws", "draws of ntk (default: 256)")
    add_optional_count(model, "--members", "networks of ensemble (default: 32)")
    model.add_argument(
        "--sampler",
        choices=("nuts", "ess", "vi", "laplace"),
        help="how bayes finds the posterior: by Markov chains, NUTS or elliptical slices, or by an "
        "approximation, variational inference or Laplace's (default: nuts)",
    )
    add_optional_count(model, "--chains", "chains of bayes (default: 2)")
    add_optional_count(model, "--warmup", "draws of each chain thrown away (default: 500)")
    add_optional_count(model, "--samples", "draws of each chain kept (default: 500)", least=4)
    model.add_argument(
        "--conformal",
        type=level,
        metavar="P",
        help="hold out a fifth of the rows, and take from it what makes prediction sets, or "
        "intervals, hold the truth with probability P, 0.9 for example",
    )


def _add_output(output: Any) -> None:
    output.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("model.ntk"),
        metavar="FILE",
        help="the model (default: model.ntk)",
    )
    output.add_argument(
        "--seed",
        type=integer(0),
        default=0,
        metavar="N",
        help="seed of the model and of the rows that are held out (default: 0)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Fit a model to the table, and save it."""
    options = _producer_options(arguments)
    check_output(arguments.output, arguments.table)

    # What is wrong with the table is said before the seconds that JAX takes to import.
    from ntk_uq.tables.columns import guess_task
    from ntk_uq.tables.frames import model_frame
    from ntk_uq.tables.places import check_columns
    from ntk_uq.tables.reading import decimal_points, read_table

    name = "standard input" if arguments.table == "-" else arguments.table
    table = read_table(arguments.table, separator=arguments.separator, missing=arguments.missing)
    target, task = arguments.target, arguments.task
    check_columns(table, [target, *arguments.drop, *arguments.categorical], name)
    if arguments.decimal == ",":
        as_written = {*arguments.drop, *arguments.categorical}
        as_written |= {target} if task == "classification" else set()
        table = decimal_points(table, table.columns.drop(list(as_written)), name)
    if task == "auto":
        task, reason = guess_task(table[target], name)
        print(f"The target {target!r} holds {reason}, so this is {task}.")
    drop, categorical = arguments.drop, arguments.categorical
    frame = model_frame(table, target, task, drop=drop, categorical=categorical, name=name)

    from ntk_uq.persistence import save
    from ntk_uq.tables.model import fit_frame

    estimator = _new_estimator(arguments.producer, task, options)
    model = fit_frame(frame, estimator, conformal=arguments.conformal, seed=arguments.seed)
    save(model, arguments.output)
    print(_summary(model, len(table)))
    print(f"The model is in {arguments.output}")


def _producer_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Arguments of the estimator; an error for options that it does not have."""
    own = _PRODUCERS[arguments.producer][1]
    for producer, (_, others) in _PRODUCERS.items():
        for option in others:
            if option not in own and getattr(arguments, option) is not None:
                raise ValueError(
                    f"--{option} belongs to --producer {producer}; {arguments.producer} has "
                    f"{', '.join(f'--{name}' for name in own)}"
                )
    if isinstance(arguments.reg, str) and arguments.producer != "ntk":
        raise ValueError(
            f"--reg {arguments.reg} belongs to --producer ntk; {arguments.producer} takes a number"
        )
    given = {argument: getattr(arguments, option) for option, argument in own.items()}
    given |= {"reg": arguments.reg}
    if arguments.network:
        given["architecture"] = own_network(arguments.network)
    return {k: v for k, v in given.items() if v is not None} | {"random_state": arguments.seed}


def _new_estimator(producer: str, task: str, options: dict[str, Any]) -> Any:
    from ntk_uq import estimators

    prefix, _ = _PRODUCERS[producer]
    suffix = "Classifier" if task == "classification" else "Regressor"
    return getattr(estimators, prefix + suffix)(**options)


def _summary(model: Any, n_rows: int) -> str:
    """What was fitted, in a few lines."""
    estimator = model.estimator
    target = (
        f"{len(estimator.classes_)} classes"
        if model.task == "classification"
        else f"noise of standard deviation {estimator.noise_[0]:.4g}"
    )
    used = f"{len(model.numeric)} columns of numbers, {len(model.categorical)} of categories"
    depth, reg = (
        getattr(estimator.architecture_, "depth", None),
        getattr(estimator, "reg_", estimator.reg),
    )
    network = f"reg = {reg:.3g}"
    if depth is not None:
        network += f", {depth} hidden layer{'s' if depth > 1 else ''}"
    if hasattr(estimator, "reg_curve_"):
        network += f", chosen by {CRITERIA[estimator.reg_curve_.criterion]}"
    lines = [f"{type(estimator).__name__}: {n_rows:,} rows, {used}, {target}", network]
    if model.level is not None and model.task == "classification":
        lines.append(
            f"Prediction sets at {model.level:g}: classes with a probability of at least "
            f"{model.quantile:.3g}, from the rows that were held out"
        )
    elif model.level is not None:
        lines.append(
            f"Intervals at {model.level:g}: {model.quantile:.3g} standard deviations to either "
            "side, from the rows that were held out"
        )
    return "\n".join(lines)
