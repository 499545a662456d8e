"""``ntk-uq compare``: the ensembles and the posterior on one data set, and a report."""

import argparse
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ntk_uq.cli.methods import DEPTH, METHODS, POSTERIORS, about, estimator, network
from ntk_uq.cli.network import add_network, shipped
from ntk_uq.cli.options import (
    CRITERIA,
    SHIPPED,
    STATUS,
    add_columns,
    add_count,
    add_optional_count,
    add_reading,
    check_output,
    integer,
    reading_options,
    reg_or_criterion,
    say,
)

if TYPE_CHECKING:
    from ntk_uq.datasets import Dataset, Split
    from ntk_uq.report import RegChoice

__all__ = ["add_parser"]

# Training points unless asked otherwise: what NUTS samples in about a minute.
_N_TRAIN = 300
# A shorter run needs no announcement, in seconds.
_WORTH_SAYING = 30

_EXAMPLES = (
    """\
examples:
  ntk-uq compare                                      scikit-learn's digits, to report.html
  ntk-uq compare --data wine --n-train 100 -o wine.html
  ntk-uq compare --reg 1                              at the Bayesian scale
  ntk-uq compare --data patients.csv --target outcome --reg 0.3 --members 64
  ntk-uq compare --data large.csv --target y --n-train 5000 --skip nuts
  ntk-uq compare --data wine --with posterior --with laplace   what is nearest to the posterior?

"""
    + STATUS
)


def add_parser(commands: Any) -> None:
    """Add the command to the shell's."""
    parser = commands.add_parser(
        "compare",
        usage="%(prog)s [options]",
        help="compare finite ensemble, infinite ensemble and posterior on a data set",
        description="Train an ensemble of wide networks, derive its infinite-width limit, sample\n"
        "the posterior by NUTS, and write a report that compares their predictions.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)

    _add_data(parser.add_argument_group("data"))
    _add_model(parser.add_argument_group("model"))
    _add_methods(parser.add_argument_group("methods"))
    _add_output(parser.add_argument_group("output"))


def _add_data(data: Any) -> None:
    data.add_argument(
        "--data",
        default="digits",
        metavar="NAME_OR_FILE",
        help=f"one of scikit-learn's data sets ({SHIPPED}) or a CSV or Parquet file with a header "
        "line, as fit takes it: numbers, categories and gaps (default: digits)",
    )
    data.add_argument("--target", metavar="COLUMN", help="column of the file with the classes")
    add_columns(data)
    add_reading(data)
    data.add_argument(
        "--n-train",
        type=integer(2),
        metavar="N",
        help=f"training points (default: {_N_TRAIN}, or two thirds of a smaller data set)",
    )
    data.add_argument(
        "--n-test", type=integer(2), metavar="N", help="test points (default: all the others)"
    )


def _add_model(model: Any) -> None:
    model.add_argument(
        "--reg",
        type=reg_or_criterion,
        default="cv",
        metavar="R",
        help="strength of the pull towards the initial parameters: the loss is the sum over the "
        "training points, plus R/2 times the squared distance. A number, 1 being the Bayesian "
        'scale; "cv" or "evidence" chooses one for all methods from the training points, and shows '
        "the posterior also where it predicts best itself (default: cv)",
    )
    add_optional_count(
        model,
        "--width",
        "units of each hidden layer of the finite networks (default: 512; of --network, its own)",
    )
    add_optional_count(model, "--depth", f"hidden layers (default: {DEPTH})")
    add_network(model)


def _add_methods(methods: Any) -> None:
    add_count(methods, "--members", 32, "networks of the finite ensemble")
    add_count(methods, "--draws", 256, "draws of the infinite ensemble")
    add_count(methods, "--chains", 2, "chains of NUTS; to judge them takes at least two")
    add_count(methods, "--warmup", 500, "draws of each chain that are thrown away")
    add_count(methods, "--samples", 1000, "draws of each chain that are kept", least=4)
    methods.add_argument(
        "--skip",
        action="append",
        choices=METHODS,
        default=[],
        metavar="METHOD",
        help=f"leave out one of {', '.join(METHODS)}; may be repeated",
    )
    methods.add_argument(
        "--with",
        dest="added",
        action="append",
        choices=POSTERIORS,
        default=[],
        metavar="METHOD",
        help="add an approximation of what NUTS samples: the infinite or finite ensemble with "
        'uncertainty="posterior", Laplace or variational inference '
        f"({', '.join(POSTERIORS)}); may be repeated",
    )


def _add_output(output: Any) -> None:
    output.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("report.html"),
        metavar="FILE",
        help="the report, one HTML file (default: report.html)",
    )
    output.add_argument(
        "--seed",
        type=integer(0),
        default=0,
        metavar="N",
        help="seed of the split and of every method (default: 0)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Fit what was asked for, compare it, and write the report."""
    methods = {name: method.title for name, method in (METHODS | POSTERIORS).items()}
    # NUTS last: what is quick is seen first.
    chosen = (set(METHODS) - set(arguments.skip)) | set(arguments.added)
    names = [name for name in methods if name in chosen - {"nuts"}] + ["nuts"] * ("nuts" in chosen)
    shipped(arguments, depth=DEPTH)
    if not names:
        raise ValueError("every method is skipped: there is nothing to compare")
    check_output(arguments.output)

    from ntk_uq.datasets import load_dataset, split

    columns = {"drop": arguments.drop, "categorical": arguments.categorical}
    reading = reading_options(arguments)
    dataset = load_dataset(arguments.data, arguments.target, **columns, **reading)
    n_train = arguments.n_train or min(_N_TRAIN, 2 * len(dataset.y) // 3)
    parts = split(dataset, n_train=n_train, n_test=arguments.n_test, seed=arguments.seed)
    titles = {name: methods[name] for name in names}
    if "nuts" in names:
        titles["nuts"] += _check_nuts(arguments, parts)
    if arguments.n_train is None and n_train == _N_TRAIN:
        say(
            f"{n_train} of {len(dataset.y):,} rows are trained on (--n-train); the methods are "
            f"compared at {len(parts.y_test):,} others"
        )

    from ntk_uq.compare import compare
    from ntk_uq.report import calibration_findings

    posterior = next((name for name in ("nuts", *POSTERIORS) if name in names), None)
    reg, choice = arguments.reg, None
    if isinstance(reg, str):
        choice = _choose_reg(arguments, parts, methods.get(posterior or ""))
        reg = choice.curve.reg
        say(f"reg = {reg:.3g}, chosen from the training points by {CRITERIA[arguments.reg]}")

    def fitted(name: str, reg: float) -> Any:
        return estimator(name, arguments, reg).fit(parts.X_train, parts.y_train)

    estimators = {}
    for number, name in enumerate(names, start=1):
        say(f"[{number}/{len(names)}] {titles[name]}")
        estimators[methods[name]] = fitted(name, reg)
    comparison = compare(
        estimators,
        parts.X_test,
        parts.y_test,
        reference=methods["nuts" if "nuts" in names else names[0]],
    )
    if choice is not None and posterior is not None and choice.posterior_curve is not None:
        best = choice.posterior_curve.reg
        if not math.isclose(best, reg):
            # A second run of NUTS would take as long as all else.
            approximation = "posterior" if posterior == "nuts" else posterior
            own = f"{methods[approximation]} at reg = {best:.3g}"
            say(f"{own}, where the posterior predicts best")
            model = fitted(approximation, best)
            choice = replace(choice, own=compare({own: model}, parts.X_test, parts.y_test))
    comparison.to_html(
        arguments.output,
        title=f"Uncertainty of wide networks: {dataset.name}",
        about={methods[name]: about(name, arguments, reg) for name in names},
        run=_description(dataset, parts, arguments),
        images=parts.images_test,
        reg=choice,
    )
    print(comparison.table.T.to_string(float_format="{:.4f}".format))
    print()
    for name, sentence in calibration_findings(comparison, choice).items():
        print(f"{name}. {sentence}")
    print(f"\nThe report is in {arguments.output}")


def _choose_reg(
    arguments: argparse.Namespace, parts: "Split", posterior: str | None
) -> "RegChoice":
    """One regularisation for all methods, and the posterior's own, from the training points."""
    import jax
    import numpy as np

    from ntk_uq._common.progress import progress_bar
    from ntk_uq.estimators.ntk import NTKClassifier
    from ntk_uq.likelihoods import Categorical
    from ntk_uq.report import RegChoice
    from ntk_uq.selection.posterior import cross_validate_posterior

    architecture = network(arguments)
    mode = NTKClassifier(
        architecture, reg=arguments.reg, uncertainty="none", random_state=arguments.seed
    ).fit(parts.X_train, parts.y_train)
    choice = RegChoice(mode.reg_curve_)
    classes, labels = np.unique(parts.y_train, return_inverse=True)
    # With a class of one point, no fold is like the whole.
    if posterior is None or np.bincount(labels).min() < 2:
        return choice
    label = "posterior along reg"
    with jax.enable_x64(True), progress_bar(label, 1) as progress:
        curve = cross_validate_posterior(
            np.random.default_rng(arguments.seed),
            architecture,
            parts.X_train,
            np.eye(len(classes))[labels],
            Categorical(),
            progress=progress,
        )
    return replace(choice, posterior=posterior, posterior_curve=curve)


def _check_nuts(arguments: argparse.Namespace, parts: "Split") -> str:
    """Say what NUTS will take where that is long, and refuse what would take too long."""
    from ntk_uq.bayes.cost import estimate_cost

    n_train, n_classes = len(parts.y_train), len(set(parts.y_train.tolist()))
    cost = estimate_cost(
        n_train,
        n_classes,
        num_warmup=arguments.warmup,
        num_samples=arguments.samples,
        num_chains=arguments.chains,
    )
    if cost.is_excessive:
        raise ValueError(
            f"NUTS on {n_train:,} points and {n_classes} classes would take {cost}; train on fewer "
            "points with --n-train, draw fewer with --warmup and --samples, or leave it out with "
            "--skip nuts"
        )
    return f", {cost}" if cost.seconds > _WORTH_SAYING else ""


def _description(
    dataset: "Dataset", parts: "Split", arguments: argparse.Namespace
) -> dict[str, object]:
    import numpy as np

    n_train, n_features = parts.X_train.shape
    return {
        "Data set": f"{dataset.name}: {dataset.description}",
        "Training points": f"{n_train:,}, drawn at random with the classes in proportion",
        "Features": f"{n_features:,}, standardised with the training points' mean and scale"
        if isinstance(dataset.X, np.ndarray)
        else f"{n_features:,}, of {dataset.X.shape[1]:,} columns: numbers are standardised by the "
        "training points, categories and gaps have columns of their own",
        "Network": arguments.network
        or "{depth} hidden layers of {width} units (ReLU)".format_map(vars(network(arguments))),
        "Regularisation": f"reg = {arguments.reg:g}, as given; left out, it is chosen from the "
        "training points"
        if isinstance(arguments.reg, float)
        else f"chosen from the training points by {CRITERIA[arguments.reg]}, see above",
        "Seed": arguments.seed,
    }
