"""``ntk-uq lazy``: whether wide networks stay near their linearisation."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ntk_uq.cli.network import add_network, own_network, shipped
from ntk_uq.cli.options import (
    SHIPPED,
    add_count,
    add_optional_count,
    add_reading,
    check_output,
    integer,
    positive,
    reading_options,
)

if TYPE_CHECKING:
    from ntk_uq.lazy import Laziness

__all__ = ["add_parser"]

# Points at which laziness is measured.
_N_PROBE = 20
# Iterations of training between which an end, or none, can be seen.
_ITERATIONS = (10, 30, 100, 300)


def add_parser(commands: Any) -> None:
    """Add the command to the shell's."""
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
    parser.set_defaults(run=run)
    parser.add_argument(
        "--data",
        default="digits",
        metavar="NAME_OR_FILE",
        help=f"as in compare: one of {SHIPPED}, or a CSV file (default: digits)",
    )
    parser.add_argument("--target", metavar="COLUMN", help="column of the file with the classes")
    add_reading(parser)
    add_count(parser, "--n-train", 100, "training points", least=2)
    parser.add_argument(
        "--widths",
        type=integer(1),
        nargs="+",
        default=[64, 256, 1024],
        metavar="N",
        help="units of each hidden layer, two or more values (default: 64 256 1024)",
    )
    add_optional_count(parser, "--depth", "hidden layers (default: 2)")
    parser.add_argument("--activation", choices=("relu", "erf", "gelu"), help="(default: relu)")
    add_network(parser)
    add_count(parser, "--members", 3, "networks of each width")
    parser.add_argument(
        "--reg", type=positive, default=1.0, metavar="R", help="as in compare (default: 1.0)"
    )
    parser.add_argument(
        "--label-smoothing",
        type=positive,
        default=0.1,
        metavar="E",
        help="probability of a label that is spread over all classes (default: 0.1)",
    )
    add_count(parser, "--max-iter", 1000, "iterations of training, where it does not converge")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("lazy.png"),
        metavar="FILE",
        help="the picture, PNG, PDF or SVG by its name (default: lazy.png)",
    )
    parser.add_argument("--seed", type=integer(0), default=0, metavar="N", help="seed (default: 0)")


def run(arguments: argparse.Namespace) -> None:
    """Train networks of the widths in three ways, print how far they move, and draw it."""
    if len(set(arguments.widths)) < 2:
        raise ValueError("a rate needs two widths: give --widths 64 256 1024, for example")
    if not arguments.label_smoothing < 1:
        raise ValueError("--label-smoothing must be below 1")
    settings = shipped(arguments, depth=2, activation="relu")
    check_output(arguments.output)

    from ntk_uq.datasets import load_dataset, split

    dataset = load_dataset(arguments.data, arguments.target, **reading_options(arguments))

    import jax
    from matplotlib.figure import Figure

    from ntk_uq._common.progress import progress_bar
    from ntk_uq.lazy import Experiment
    from ntk_uq.networks.mlp import MLP
    from ntk_uq.plots import plot_laziness

    parts = split(dataset, n_train=arguments.n_train, n_test=_N_PROBE, seed=arguments.seed)
    experiment = Experiment(
        jax.random.key(arguments.seed),
        own_network(arguments.network, min(arguments.widths))
        if arguments.network
        else MLP(**settings),
        parts.X_train,
        parts.y_train,
        parts.X_test,
        reg=arguments.reg,
        label_smoothing=arguments.label_smoothing,
        n_members=arguments.members,
    )
    widths = sorted(set(arguments.widths))

    def measure(name: str, widths: list[int], **options: Any) -> "Laziness":
        with progress_bar(name, len(widths) * arguments.members) as progress:
            return experiment.measure(name, widths, progress=progress, **options)

    results = {}
    for name in experiment.regimes:
        results[name] = measure(name, widths, max_iter=arguments.max_iter)
        print(f"{name}\n{results[name].to_string()}\n", flush=True)
    print(f"Training longer, width {widths[-1]}: kernel change, largest output")
    print(f"{'iterations':>10}" + "".join(f"{name:>36}" for name in experiment.regimes))
    for n_iter in _ITERATIONS:
        longer = [
            measure(name, widths[-1:], max_iter=n_iter, tol=0.0) for name in experiment.regimes
        ]
        cells = (f"{r.kernel_change.mean():.3f}, {r.largest_output.mean():.1f}" for r in longer)
        print(f"{n_iter:>10}" + "".join(f"{cell:>36}" for cell in cells), flush=True)
    figure = Figure(layout="constrained")
    plot_laziness(results, ax=figure.subplots())
    figure.savefig(arguments.output)
    print(f"\nThe picture is in {arguments.output}")
