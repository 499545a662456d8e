"""The ``ntk-uq`` command."""

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

# What takes seconds to import loads in the functions that use it, after the arguments are read.
from ntk_uq import __version__

if TYPE_CHECKING:
    from ntk_uq.datasets import Dataset, Split

__all__ = ["main"]

_SHIPPED = "digits, iris, wine, breast_cancer"
_METHODS = {
    "ensemble": "Finite ensemble",
    "infinite": "Infinite (exact)",
    "gaussian": "Infinite (Gaussian)",
    "nuts": "NUTS",
}
# Training points unless asked otherwise: what NUTS samples in about a minute.
_N_TRAIN = 300
# Points at which laziness is measured.
_N_PROBE = 20
# Iterations of training between which an end, or none, can be seen.
_ITERATIONS = (10, 30, 100, 300)
# A shorter run needs no announcement, in seconds.
_WORTH_SAYING = 30

_EXAMPLES = """\
examples:
  ntk-uq compare                                      scikit-learn's digits, to report.html
  ntk-uq compare --data wine --n-train 100 -o wine.html
  ntk-uq compare --data patients.csv --target outcome --reg 0.3 --members 64
  ntk-uq compare --data large.csv --target y --n-train 5000 --skip nuts

exit status: 0, or 2 for a mistake in the arguments or the data, 1 for any other failure,
130 if interrupted
"""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; those of the process by default.

    Returns
    -------
    int
        Exit status.
    """
    parser = _parser()
    arguments = parser.parse_args(argv)
    name = f"{parser.prog} {arguments.command}"
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: _say(f"{name}: warning: {message}")
        try:
            arguments.run(arguments)
        except KeyboardInterrupt:
            _say(f"{name}: interrupted; nothing was written")
            return 130
        except (ValueError, OSError, NotImplementedError) as error:
            _say(f"{name}: error: {error}")
            return 2
        except Exception as error:
            if "NTK_UQ_TRACEBACK" in os.environ:
                raise
            _say(
                f"{name}: error: {type(error).__name__}: {error} (this should not happen; with "
                "NTK_UQ_TRACEBACK=1 in the environment it shows where)"
            )
            return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="ntk-uq", description="How sure may a wide neural network be?")
    parser.add_argument("--version", action="version", version=f"ntk_uq {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_compare(commands)
    _add_lazy(commands)
    return parser


def _add_compare(commands: Any) -> None:
    parser = commands.add_parser(
        "compare",
        usage="%(prog)s [options]",
        help="compare finite ensemble, infinite ensemble and posterior on a data set",
        description="Train an ensemble of wide networks, derive its infinite-width limit, sample\n"
        "the posterior by NUTS, and write a report that compares their predictions.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=_compare)

    data = parser.add_argument_group("data")
    data.add_argument(
        "--data",
        default="digits",
        metavar="NAME_OR_FILE",
        help=f"one of scikit-learn's data sets ({_SHIPPED}) or a CSV file with a header line; "
        "features are standardised (default: digits)",
    )
    data.add_argument("--target", metavar="COLUMN", help="column of the CSV file with the classes")
    data.add_argument(
        "--n-train",
        type=_integer(2),
        metavar="N",
        help=f"training points (default: {_N_TRAIN}, or two thirds of a smaller data set)",
    )
    data.add_argument(
        "--n-test", type=_integer(2), metavar="N", help="test points (default: all the others)"
    )

    model = parser.add_argument_group("model")
    model.add_argument(
        "--reg",
        type=_positive,
        default=1.0,
        metavar="R",
        help="strength of the pull towards the initial parameters: the loss is the sum over the "
        "training points, plus R/2 times the squared distance (default: 1.0)",
    )
    _add_count(model, "--width", 512, "units of each hidden layer of the finite networks")
    _add_count(model, "--depth", 2, "hidden layers")

    methods = parser.add_argument_group("methods")
    _add_count(methods, "--members", 32, "networks of the finite ensemble")
    _add_count(methods, "--draws", 256, "draws of the infinite ensemble")
    _add_count(methods, "--chains", 2, "chains of NUTS; to judge them takes at least two")
    _add_count(methods, "--warmup", 500, "draws of each chain that are thrown away")
    _add_count(methods, "--samples", 1000, "draws of each chain that are kept", least=4)
    methods.add_argument(
        "--skip",
        action="append",
        choices=_METHODS,
        default=[],
        metavar="METHOD",
        help=f"leave out one of {', '.join(_METHODS)}; may be repeated",
    )

    output = parser.add_argument_group("output")
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
        type=_integer(0),
        default=0,
        metavar="N",
        help="seed of the split and of every method (default: 0)",
    )


def _add_lazy(commands: Any) -> None:
    parser = commands.add_parser(
        "lazy",
        usage="%(prog)s [options]",
        help="measure whether wide networks stay near their linearisation",
        description="Train networks of several widths in three ways: regularised, without\n"
        "regularisation on smoothed labels, and without either. Print how far tangent kernel,\n"
        "parameters and outputs move from the linearised network, with the rate in the width;\n"
        "then train longer. With neither, logits and kernel run away. Also draws a picture.",
        epilog="example:\n  ntk-uq lazy --data wine --n-train 50 --widths 64 256 1024 -o wine.png",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=_lazy)
    parser.add_argument(
        "--data",
        default="digits",
        metavar="NAME_OR_FILE",
        help=f"as in compare: one of {_SHIPPED}, or a CSV file (default: digits)",
    )
    parser.add_argument(
        "--target", metavar="COLUMN", help="column of the CSV file with the classes"
    )
    _add_count(parser, "--n-train", 100, "training points", least=2)
    parser.add_argument(
        "--widths",
        type=_integer(1),
        nargs="+",
        default=[64, 256, 1024],
        metavar="N",
        help="units of each hidden layer, two or more values (default: 64 256 1024)",
    )
    _add_count(parser, "--depth", 2, "hidden layers")
    parser.add_argument(
        "--activation", choices=("relu", "erf", "gelu"), default="relu", help="(default: relu)"
    )
    _add_count(parser, "--members", 3, "networks of each width")
    parser.add_argument(
        "--reg", type=_positive, default=1.0, metavar="R", help="as in compare (default: 1.0)"
    )
    parser.add_argument(
        "--label-smoothing",
        type=_positive,
        default=0.1,
        metavar="E",
        help="probability of a label that is spread over all classes (default: 0.1)",
    )
    _add_count(parser, "--max-iter", 1000, "iterations of training, where it does not converge")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("lazy.png"),
        metavar="FILE",
        help="the picture, PNG, PDF or SVG by its name (default: lazy.png)",
    )
    parser.add_argument(
        "--seed", type=_integer(0), default=0, metavar="N", help="seed (default: 0)"
    )


def _add_count(group: Any, option: str, default: int, text: str, least: int = 1) -> None:
    group.add_argument(
        option,
        type=_integer(least),
        default=default,
        metavar="N",
        help=f"{text} (default: {default})",
    )


def _integer(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number of {least} or more")
        return value

    return parse


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no positive number")
    return value


def _compare(arguments: argparse.Namespace) -> None:
    names = [name for name in _METHODS if name not in arguments.skip]
    if not names:
        raise ValueError("every method is skipped: there is nothing to compare")
    _check_output(arguments.output)

    from ntk_uq.datasets import load_dataset, split

    dataset = load_dataset(arguments.data, arguments.target)
    n_train = arguments.n_train or min(_N_TRAIN, 2 * len(dataset.y) // 3)
    parts = split(dataset, n_train=n_train, n_test=arguments.n_test, seed=arguments.seed)
    titles = {name: _METHODS[name] for name in names}
    if "nuts" in names:
        titles["nuts"] += _check_nuts(arguments, parts)

    from ntk_uq.compare import compare

    estimators = {}
    for number, name in enumerate(names, start=1):
        _say(f"[{number}/{len(names)}] {titles[name]}")
        estimator = _estimator(name, arguments)
        estimators[_METHODS[name]] = estimator.fit(parts.X_train, parts.y_train)
    comparison = compare(
        estimators,
        parts.X_test,
        parts.y_test,
        reference=_METHODS["nuts" if "nuts" in names else names[0]],
    )
    comparison.to_html(
        arguments.output,
        title=f"Uncertainty of wide networks: {dataset.name}",
        about={_METHODS[name]: _about(name, arguments) for name in names},
        run=_description(dataset, parts, arguments),
        images=parts.images_test,
    )
    print(comparison.table.T.to_string(float_format="{:.4f}".format))
    print(f"\nThe report is in {arguments.output}")


def _estimator(name: str, arguments: argparse.Namespace) -> Any:
    from ntk_uq.architectures import MLP
    from ntk_uq.estimators import BayesianClassifier, EnsembleClassifier, NTKClassifier

    shared = {
        "architecture": MLP(width=arguments.width, depth=arguments.depth),
        "reg": arguments.reg,
        "random_state": arguments.seed,
    }
    match name:
        case "ensemble":
            return EnsembleClassifier(n_members=arguments.members, **shared)
        case "infinite":
            return NTKClassifier(method="exact", n_draws=arguments.draws, **shared)
        case "gaussian":
            return NTKClassifier(method="gaussian", **shared)
        case _:
            return BayesianClassifier(
                prior="ntk",
                num_warmup=arguments.warmup,
                num_samples=arguments.samples,
                num_chains=arguments.chains,
                **shared,
            )


def _about(name: str, arguments: argparse.Namespace) -> str:
    match name:
        case "ensemble":
            return (
                f"{arguments.members} networks of width {arguments.width:,}, each trained to "
                "convergence from its own random initialisation. Its uncertainty is the spread "
                "over initialisations."
            )
        case "infinite":
            return (
                "An ensemble of networks of infinite width, from the neural tangent kernel: "
                f"{arguments.draws:,} random initialisations are drawn, and a convex problem gives "
                "the end of training of each."
            )
        case "gaussian":
            return (
                "The infinite ensemble in closed form: Gaussian logits, right to first order in "
                "the network at initialisation."
            )
        case _:
            return (
                "The Bayesian posterior whose most probable function is the trained network: a "
                "Gaussian process, with the neural tangent kernel divided by reg as its prior "
                f"covariance, sampled by {arguments.chains} Markov chains."
            )


def _lazy(arguments: argparse.Namespace) -> None:
    if len(set(arguments.widths)) < 2:
        raise ValueError("a rate needs two widths: give --widths 64 256 1024, for example")
    if not arguments.label_smoothing < 1:
        raise ValueError("--label-smoothing must be below 1")
    _check_output(arguments.output)

    import jax
    import jax.numpy as jnp
    import numpy as np
    from matplotlib.figure import Figure

    from ntk_uq._progress import progress_bar
    from ntk_uq.architectures import MLP
    from ntk_uq.datasets import load_dataset, split
    from ntk_uq.lazy import measure_laziness
    from ntk_uq.likelihoods import Categorical
    from ntk_uq.plots import plot_laziness

    dataset = load_dataset(arguments.data, arguments.target)
    parts = split(dataset, n_train=arguments.n_train, n_test=_N_PROBE, seed=arguments.seed)
    classes, labels = np.unique(parts.y_train, return_inverse=True)
    one_hot = np.eye(len(classes))[labels]
    smoothing = arguments.label_smoothing
    smoothed = (1 - smoothing) * one_hot + smoothing / len(classes)
    regimes = {
        f"reg = {arguments.reg:g}": (one_hot, arguments.reg),
        f"reg = 0, labels smoothed by {smoothing:g}": (smoothed, 0.0),
        "reg = 0, one-hot labels": (one_hot, 0.0),
    }
    widths = sorted(set(arguments.widths))

    def measure(name: str, widths: list[int], **options: Any) -> Any:
        targets, reg = regimes[name]
        with progress_bar(name, len(widths) * arguments.members) as progress:
            return measure_laziness(
                jax.random.key(arguments.seed),
                MLP(depth=arguments.depth, activation=arguments.activation),
                jnp.asarray(parts.X_train, jnp.float32),
                jnp.asarray(targets, jnp.float32),
                Categorical(),
                reg=reg,
                widths=widths,
                X_probe=jnp.asarray(parts.X_test, jnp.float32),
                n_members=arguments.members,
                progress=progress,
                **options,
            )

    results = {}
    for name in regimes:
        results[name] = measure(name, widths, max_iter=arguments.max_iter)
        print(f"{name}\n{_laziness_table(results[name])}\n", flush=True)
    print(f"Training longer, width {widths[-1]}: kernel change, largest output")
    print(f"{'iterations':>10}" + "".join(f"{name:>36}" for name in regimes))
    for n_iter in _ITERATIONS:
        longer = [measure(name, widths[-1:], max_iter=n_iter, tol=0.0) for name in regimes]
        cells = (f"{r.kernel_change.mean():.3f}, {r.largest_output.mean():.1f}" for r in longer)
        print(f"{n_iter:>10}" + "".join(f"{cell:>36}" for cell in cells), flush=True)
    figure = Figure(layout="constrained")
    plot_laziness(results, ax=figure.subplots())
    figure.savefig(arguments.output)
    print(f"\nThe picture is in {arguments.output}")


def _laziness_table(laziness: Any) -> str:
    """Means over networks, a row for each width, and the rates below."""
    quantities = ("kernel_change", "parameter_distance", "linearisation_error", "largest_output")
    titles = ("kernel change", "parameters", "outputs - linear", "largest output")
    lines = [f"{'width':>8}" + "".join(f"{title:>22}" for title in titles) + f"{'converged':>12}"]
    for i, width in enumerate(laziness.widths):
        means = "".join(f"{getattr(laziness, name)[i].mean():22.4f}" for name in quantities)
        done = f"{laziness.converged[i].sum()} of {laziness.converged[i].size}"
        lines.append(f"{width:8d}{means}{done:>12}")
    lines.append(f"{'rate':>8}" + "".join(f"{laziness.rate(name)!s:>22}" for name in quantities))
    return "\n".join(lines)


def _check_output(path: Path) -> None:
    """Find out before the work begins, not after."""
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is not a regular file, so it cannot be replaced by a report")
    if not path.parent.is_dir():
        raise ValueError(f"the folder {path.parent} does not exist; create it first")
    if not os.access(path.parent, os.W_OK):
        raise ValueError(f"the folder {path.parent} cannot be written to")


def _check_nuts(arguments: argparse.Namespace, parts: "Split") -> str:
    """Say what NUTS will take where that is long, and refuse what would take too long."""
    from ntk_uq.bayes import estimate_cost

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
    n_train, n_features = parts.X_train.shape
    return {
        "Data set": f"{dataset.name}: {dataset.description}",
        "Training points": f"{n_train:,}, drawn at random with the classes in proportion",
        "Features": f"{n_features:,}, standardised with the training points' mean and scale",
        "Network": f"{arguments.depth} hidden layers of {arguments.width} units (ReLU)",
        "Regularisation": f"reg = {arguments.reg:g}",
        "Seed": arguments.seed,
    }


def _say(message: str) -> None:
    """Write one line to standard error, whatever the message holds."""
    print(" ".join(message.split()), file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
