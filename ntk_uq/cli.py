"""The ``ntk-uq`` command."""

import argparse
import math
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

# What takes seconds to import loads in the functions that use it, after the arguments are read.
from ntk_uq import __version__

if TYPE_CHECKING:
    from ntk_uq.datasets import Dataset, Split
    from ntk_uq.report import RegChoice

__all__ = ["main"]

_SHIPPED = "digits, iris, wine, breast_cancer"
_METHODS = {
    "ensemble": "Finite ensemble",
    "infinite": "Infinite (exact)",
    "gaussian": "Infinite (Gaussian)",
    "nuts": "NUTS",
}
# What `compare --with` adds: approximate posteriors.
_POSTERIORS = {
    "posterior": "Infinite (posterior)",
    "finite-posterior": "Finite (posterior)",
    "laplace": "Laplace",
    "vi": "Variational",
}
_CRITERIA = {"cv": "cross-validation", "evidence": "the evidence"}
# Training points unless asked otherwise: what NUTS samples in about a minute.
_N_TRAIN = 300
# Points at which laziness is measured.
_N_PROBE = 20
# Iterations of training between which an end, or none, can be seen.
_ITERATIONS = (10, 30, 100, 300)
# A shorter run needs no announcement, in seconds.
_WORTH_SAYING = 30

# Options of `fit` that only one producer has, and that estimator's argument.
_PRODUCERS = {
    "ntk": {"draws": "n_draws", "method": "method", "uncertainty": "uncertainty"},
    "ensemble": {"members": "n_members", "uncertainty": "uncertainty"},
    "bayes": {
        "sampler": "sampler",
        "chains": "num_chains",
        "warmup": "num_warmup",
        "samples": "num_samples",
    },
}

_STATUS = """\
exit status: 0, or 2 for a mistake in the arguments or the data, 1 for any other failure,
130 if interrupted
"""

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
    + _STATUS
)

_FIT_EXAMPLES = (
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
    + _STATUS
)

_PREDICT_EXAMPLES = (
    """\
examples:
  ntk-uq predict model.ntk test.csv -o predictions.csv
  ntk-uq predict model.ntk new.csv --keep id -o predictions.csv
  cat new.csv | ntk-uq predict model.ntk - -o - | sort -t, -k6 -g

Columns are found by their names, in any order; columns that the model does not use are ignored.
What is written, one line for each row:
  classes   prediction, probability_<class>, total_uncertainty, aleatoric and epistemic (nats;
            total = aleatoric + epistemic), and prediction_set, classes separated by "|", if the
            model was fitted with --conformal
  numbers   prediction (the mean), std of an observation, epistemic_std (of the mean alone), and
            the interval from lower to upper
If the table has the target, scores are printed: log loss in nats, the share of rows whose set or
interval holds it, and the mean size of the sets.

"""
    + _STATUS
)


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
        except BrokenPipeError:  # whoever reads has enough, as head has
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except KeyboardInterrupt:
            _say(f"{name}: interrupted; nothing was written")
            return 130
        except (ValueError, OSError, NotImplementedError, MemoryError, ImportError) as error:
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
    _add_fit(commands)
    _add_predict(commands)
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
        help=f"one of scikit-learn's data sets ({_SHIPPED}) or a CSV or Parquet file with a header "
        "line; features are standardised (default: digits)",
    )
    data.add_argument("--target", metavar="COLUMN", help="column of the file with the classes")
    _add_reading(data)
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
        type=_reg,
        default="cv",
        metavar="R",
        help="strength of the pull towards the initial parameters: the loss is the sum over the "
        "training points, plus R/2 times the squared distance. A number, 1 being the Bayesian "
        'scale; "cv" or "evidence" chooses one for all methods from the training points, and shows '
        "the posterior also where it predicts best itself (default: cv)",
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
    methods.add_argument(
        "--with",
        dest="added",
        action="append",
        choices=_POSTERIORS,
        default=[],
        metavar="METHOD",
        help="add an approximation of what NUTS samples: the infinite or finite ensemble with "
        'uncertainty="posterior", Laplace or variational inference '
        f"({', '.join(_POSTERIORS)}); may be repeated",
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


def _add_fit(commands: Any) -> None:
    parser = commands.add_parser(
        "fit",
        usage="%(prog)s FILE --target COLUMN [-o MODEL] [options]",
        help="fit a model to a table and save it",
        description="Fit an ensemble or a posterior to a table of numbers and categories, and\n"
        "save it, together with what makes numbers of the columns, to one file.",
        epilog=_FIT_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=_fit)

    data = parser.add_argument_group("data")
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
    _add_reading(data)

    model = parser.add_argument_group("model")
    model.add_argument(
        "--producer",
        choices=_PRODUCERS,
        default="ntk",
        help="ntk: the infinite ensemble; ensemble: finite networks; bayes: the posterior, sampled "
        "(default: ntk)",
    )
    model.add_argument(
        "--reg",
        type=_reg,
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
    _add_optional_count(model, "--draws", "draws of ntk (default: 256)")
    _add_optional_count(model, "--members", "networks of ensemble (default: 32)")
    model.add_argument(
        "--sampler",
        choices=("nuts", "ess", "vi", "laplace"),
        help="how bayes finds the posterior: by Markov chains, NUTS or elliptical slices, or by an "
        "approximation, variational inference or Laplace's (default: nuts)",
    )
    _add_optional_count(model, "--chains", "chains of bayes (default: 2)")
    _add_optional_count(model, "--warmup", "draws of each chain thrown away (default: 500)")
    _add_optional_count(model, "--samples", "draws of each chain kept (default: 500)", least=4)
    model.add_argument(
        "--conformal",
        type=_level,
        metavar="P",
        help="hold out a fifth of the rows, and take from it what makes prediction sets, or "
        "intervals, hold the truth with probability P, 0.9 for example",
    )

    output = parser.add_argument_group("output")
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
        type=_integer(0),
        default=0,
        metavar="N",
        help="seed of the model and of the rows that are held out (default: 0)",
    )


def _add_predict(commands: Any) -> None:
    parser = commands.add_parser(
        "predict",
        usage="%(prog)s MODEL FILE [-o FILE] [options]",
        help="predict the rows of a table by a model that fit saved",
        description="Predict the rows of a table, with uncertainties, by a model of ntk-uq fit.",
        epilog=_PREDICT_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=_predict)
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
    _add_reading(parser)
    parser.add_argument(
        "--level",
        type=_level,
        metavar="P",
        help="probability of the intervals of a regression that was fitted without --conformal "
        "(default: 0.9)",
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
    parser.add_argument("--target", metavar="COLUMN", help="column of the file with the classes")
    _add_reading(parser)
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


def _add_reading(group: Any) -> None:
    group.add_argument(
        "--separator",
        type=_separator,
        metavar="CHAR",
        help='what stands between values in CSV, ";" or "tab" for example (default: the one of '
        "comma, semicolon, tab and bar that is in the header line)",
    )
    group.add_argument(
        "--decimal",
        choices=(".", ","),
        default=".",
        help="what stands before the decimals of numbers (default: .)",
    )
    group.add_argument(
        "--missing",
        action="append",
        default=[],
        metavar="TEXT",
        help='what else than an empty cell is a missing value, "?" or "-999" for example; may be '
        "repeated",
    )


def _add_count(group: Any, option: str, default: int, text: str, least: int = 1) -> None:
    group.add_argument(
        option,
        type=_integer(least),
        default=default,
        metavar="N",
        help=f"{text} (default: {default})",
    )


def _add_optional_count(group: Any, option: str, text: str, least: int = 1) -> None:
    group.add_argument(option, type=_integer(least), metavar="N", help=text)


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


def _separator(text: str) -> str:
    character = {"tab": "\t", "\\t": "\t"}.get(text, text)
    if len(character) != 1 or character in '"\r\n':
        raise argparse.ArgumentTypeError(f'{text!r} is not one character, nor "tab"')
    return character


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no positive number")
    return value


def _reg(text: str) -> float | str:
    if text in ("cv", "evidence"):
        return text
    try:
        return _positive(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f'{error}, nor "cv" or "evidence"') from None


def _level(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no probability between 0 and 1")
    return value


def _compare(arguments: argparse.Namespace) -> None:
    methods = _METHODS | _POSTERIORS
    # NUTS last: what is quick is seen first.
    chosen = (set(_METHODS) - set(arguments.skip)) | set(arguments.added)
    names = [name for name in methods if name in chosen - {"nuts"}] + ["nuts"] * ("nuts" in chosen)
    if not names:
        raise ValueError("every method is skipped: there is nothing to compare")
    _check_output(arguments.output)

    from ntk_uq.datasets import load_dataset, split

    dataset = load_dataset(arguments.data, arguments.target, **_reading(arguments))
    n_train = arguments.n_train or min(_N_TRAIN, 2 * len(dataset.y) // 3)
    parts = split(dataset, n_train=n_train, n_test=arguments.n_test, seed=arguments.seed)
    titles = {name: methods[name] for name in names}
    if "nuts" in names:
        titles["nuts"] += _check_nuts(arguments, parts)

    from ntk_uq.compare import compare
    from ntk_uq.report import calibration_findings

    posterior = next((name for name in ("nuts", *_POSTERIORS) if name in names), None)
    reg, choice = arguments.reg, None
    if isinstance(reg, str):
        choice = _choose_reg(arguments, parts, methods.get(posterior or ""))
        reg = choice.curve.reg
        _say(f"reg = {reg:.3g}, chosen from the training points by {_CRITERIA[arguments.reg]}")

    def fitted(name: str, reg: float) -> Any:
        return _estimator(name, arguments, reg).fit(parts.X_train, parts.y_train)

    estimators = {}
    for number, name in enumerate(names, start=1):
        _say(f"[{number}/{len(names)}] {titles[name]}")
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
            _say(f"{own}, where the posterior predicts best")
            model = fitted(approximation, best)
            choice = replace(choice, own=compare({own: model}, parts.X_test, parts.y_test))
    comparison.to_html(
        arguments.output,
        title=f"Uncertainty of wide networks: {dataset.name}",
        about={methods[name]: _about(name, arguments, reg) for name in names},
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
    from ntk_uq.selection import cross_validate_posterior

    network = _network(arguments)
    mode = NTKClassifier(
        network, reg=arguments.reg, uncertainty="none", random_state=arguments.seed
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
            network,
            parts.X_train,
            np.eye(len(classes))[labels],
            Categorical(),
            progress=progress,
        )
    return replace(choice, posterior=posterior, posterior_curve=curve)


def _network(arguments: argparse.Namespace) -> Any:
    from ntk_uq.networks.mlp import MLP

    return MLP(width=arguments.width, depth=arguments.depth)


def _estimator(name: str, arguments: argparse.Namespace, reg: float) -> Any:
    from ntk_uq.estimators.bayesian import BayesianClassifier
    from ntk_uq.estimators.ensemble import EnsembleClassifier
    from ntk_uq.estimators.ntk import NTKClassifier

    shared = {
        "architecture": _network(arguments),
        "reg": reg,
        "random_state": arguments.seed,
    }
    match name:
        case "ensemble":
            return EnsembleClassifier(n_members=arguments.members, **shared)
        case "infinite":
            return NTKClassifier(method="exact", n_draws=arguments.draws, **shared)
        case "gaussian":
            return NTKClassifier(method="gaussian", **shared)
        case "posterior":
            return NTKClassifier(
                uncertainty="posterior",
                n_draws=arguments.draws,
                n_trajectories=_trajectories(reg),
                **shared,
            )
        case "finite-posterior":
            return EnsembleClassifier(
                n_members=arguments.members, uncertainty="posterior", **shared
            )
        case "laplace":
            return NTKClassifier(uncertainty="posterior", method="gaussian", **shared)
        case _:
            return BayesianClassifier(
                prior="ntk",
                sampler="vi" if name == "vi" else "nuts",
                num_warmup=arguments.warmup,
                num_samples=arguments.samples,
                num_chains=arguments.chains,
                **shared,
            )


def _trajectories(reg: float) -> int:
    """How far draws must be moved that are right to first order: far where the prior is wide."""
    return 0 if reg >= 1 else 1 if reg > 0.005 else 16


def _about(name: str, arguments: argparse.Namespace, reg: float) -> str:
    n = _trajectories(reg)
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
        case "posterior":
            return (
                f"Approximate posterior samples without a Markov chain: {arguments.draws:,} "
                "functions drawn from the prior, each trained on labels with noise"
                + (
                    f", and moved by {n} Hamiltonian trajector{'y' if n == 1 else 'ies'}"
                    if n
                    else ""
                )
                + "."
            )
        case "finite-posterior":
            return (
                f"The same, right to first order, with {arguments.members} networks of width "
                f"{arguments.width:,} in place of the limit of infinite width."
            )
        case "laplace":
            return (
                "A Gaussian in place of the posterior: its mode, and the curvature there, in "
                "closed form."
            )
        case "vi":
            return (
                "The Gaussian with independent whitened variables that is nearest to the posterior "
                "in Kullback-Leibler divergence."
            )
        case _:
            return (
                "The Bayesian posterior whose most probable function is the trained network: a "
                "Gaussian process, with the neural tangent kernel divided by reg as its prior "
                f"covariance, sampled by {arguments.chains} Markov chains."
            )


def _fit(arguments: argparse.Namespace) -> None:
    options = _producer_options(arguments)
    _check_output(arguments.output, arguments.table)

    # What is wrong with the table is said before the seconds that JAX takes to import.
    from ntk_uq.tables.reading import (
        check_columns,
        decimal_points,
        guess_task,
        model_frame,
        read_table,
    )

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


def _reading(arguments: argparse.Namespace) -> dict[str, Any]:
    """How to read a table."""
    return {option: getattr(arguments, option) for option in ("separator", "decimal", "missing")}


def _producer_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Arguments of the estimator; an error for options that it does not have."""
    own = _PRODUCERS[arguments.producer]
    for producer, others in _PRODUCERS.items():
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
    return {k: v for k, v in given.items() if v is not None} | {"random_state": arguments.seed}


def _new_estimator(producer: str, task: str, options: dict[str, Any]) -> Any:
    from ntk_uq import estimators

    prefix = {"ntk": "NTK", "ensemble": "Ensemble", "bayes": "Bayesian"}[producer]
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
    depth, reg = estimator.architecture_.depth, getattr(estimator, "reg_", estimator.reg)
    network = f"reg = {reg:.3g}, {depth} hidden layer{'s' if depth > 1 else ''}"
    if hasattr(estimator, "reg_curve_"):
        network += f", chosen by {_CRITERIA[estimator.reg_curve_.criterion]}"
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


def _predict(arguments: argparse.Namespace) -> None:
    if arguments.output != "-":
        _check_output(Path(arguments.output), arguments.table, str(arguments.model))

    if not arguments.model.is_file():
        raise ValueError(f"there is no model {arguments.model}; ntk-uq fit writes one")

    import pandas as pd

    from ntk_uq.tables.reading import check_columns, decimal_points, read_table

    name = "standard input" if arguments.table == "-" else arguments.table
    table = read_table(arguments.table, separator=arguments.separator, missing=arguments.missing)
    check_columns(table, arguments.keep, name)
    kept = table[arguments.keep].reset_index(drop=True)

    from ntk_uq.persistence import load
    from ntk_uq.tables.model import TableModel
    from ntk_uq.tables.writing import write_table

    model = load(arguments.model)
    if not isinstance(model, TableModel):
        raise ValueError(
            f"{arguments.model} holds one {type(model).__name__}, saved from Python, where "
            "nuq.load reads it; predict takes what ntk-uq fit wrote"
        )
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
        print(f"{len(predictions):,} predictions are in {arguments.output}")


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

    from ntk_uq._common.progress import progress_bar
    from ntk_uq.datasets import load_dataset, split
    from ntk_uq.lazy import measure_laziness
    from ntk_uq.likelihoods import Categorical
    from ntk_uq.networks.mlp import MLP
    from ntk_uq.plots import plot_laziness

    dataset = load_dataset(arguments.data, arguments.target, **_reading(arguments))
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


def _check_output(path: Path, *inputs: str) -> None:
    """Find out before the work begins, not after."""
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is not a regular file, so it cannot be replaced")
    if path.exists() and any(Path(name).exists() and path.samefile(name) for name in inputs):
        raise ValueError(f"{path} would be overwritten, and it is what is read; give another name")
    if not path.parent.is_dir():
        raise ValueError(f"the folder {path.parent} does not exist; create it first")
    if not os.access(path.parent, os.W_OK):
        raise ValueError(f"the folder {path.parent} cannot be written to")


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
    n_train, n_features = parts.X_train.shape
    return {
        "Data set": f"{dataset.name}: {dataset.description}",
        "Training points": f"{n_train:,}, drawn at random with the classes in proportion",
        "Features": f"{n_features:,}, standardised with the training points' mean and scale",
        "Network": f"{arguments.depth} hidden layers of {arguments.width} units (ReLU)",
        "Regularisation": f"reg = {arguments.reg:g}, as given; left out, it is chosen from the "
        "training points"
        if isinstance(arguments.reg, float)
        else f"chosen from the training points by {_CRITERIA[arguments.reg]}, see above",
        "Seed": arguments.seed,
    }


def _say(message: str) -> None:
    """Write one line to standard error, whatever the message holds."""
    print(" ".join(message.split()), file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
