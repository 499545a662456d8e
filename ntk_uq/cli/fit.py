"""``ntk-uq fit``: a model of a table, saved."""

import argparse
import shlex
import warnings
from pathlib import Path
from typing import Any

from ntk_uq.cli.network import add_network, own_network
from ntk_uq.cli.options import (
    CRITERIA,
    SAMPLERS,
    STATUS,
    add_columns,
    add_optional_count,
    add_reading,
    check_output,
    class_weight,
    cost,
    integer,
    level,
    positive,
    reg_or_criterion,
    say,
    threshold,
)

__all__ = ["add_parser"]

# What the name of an estimator begins with, by producer; and options that only that one has, with
# the estimator's argument.
_PRODUCERS: dict[str, tuple[str, dict[str, str]]] = {
    "ntk": (
        "NTK",
        {
            "draws": "n_draws",
            "method": "method",
            "uncertainty": "uncertainty",
            "inducing": "n_inducing",
            "tol": "tol",
            "storage": "storage",
            "checkpoint": "checkpoint",
        },
    ),
    "ensemble": (
        "Ensemble",
        {
            "members": "n_members",
            "uncertainty": "uncertainty",
            "batch-size": "batch_size",
            "epochs": "max_iter",
            "checkpoint": "checkpoint",
        },
    ),
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

# Options of ntk that only some of its methods have.
_OF_METHODS = {
    "inducing": ("nystrom",),
    "tol": ("exact", "nystrom"),
    "storage": ("exact", "nystrom"),
}

# Of mini-batches: passes, and Adam's learning rate, which falls to nothing along a cosine.
_EPOCHS, _LEARNING_RATE = 30, 0.01
# Share of the free memory, and rows, from which on it is said what a fit takes.
_WORTH_SAYING, _MANY_ROWS = 0.25, 10_000
# Options of one value that the fit in mini-batches instead has too.
_IN_BATCHES = (
    *("task", "weight", "reg", "uncertainty", "network", "conformal", "sets", "intervals"),
    *("positive", "reject", "seed"),
)
# And seconds of sampling.
_LONG = 30

_EXAMPLES = (
    """\
examples:
  ntk-uq fit train.csv --target y -o model.ntk
  ntk-uq fit patients.csv --target outcome --conformal 0.9 --drop id --categorical ward
  ntk-uq fit houses.parquet --target price --task regression --uncertainty posterior
  ntk-uq fit train.csv --target y --producer ensemble --members 16 --reg 0.3
  ntk-uq fit many.csv --target y --storage /scratch --checkpoint run-1 --draws 64
  ntk-uq fit train.csv --target churn --threshold recall=0.8 --positive yes --reject 0.1
  ntk-uq fit train.csv --target churn --cost yes:no=5 --cost no:yes=1 --class-weight balanced
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
    _add_decisions(parser.add_argument_group("sets and decisions"))
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
    add_columns(data)
    data.add_argument(
        "--weight",
        metavar="COLUMN",
        help="column of the rows' weights, no feature: 2 is the row twice, 0 leaves it out",
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
        choices=("exact", "gaussian", "nystrom"),
        help="ntk by draws, in closed form, or by draws that learn with some of the rows alone, an "
        "approximation where the kernel of all rows fits nowhere (default: exact for classes, "
        "gaussian for numbers)",
    )
    add_network(model)
    add_optional_count(model, "--draws", "draws of ntk (default: 256)")
    add_optional_count(
        model, "--inducing", "rows, taken at random, that nystrom learns with (default: 4096)"
    )
    model.add_argument(
        "--tol",
        type=positive,
        metavar="T",
        help="how far draws of ntk may be from their solution, in posterior standard deviations "
        "(default: 1e-6, and 0.005 above 3,000 rows and of nystrom)",
    )
    model.add_argument(
        "--storage",
        metavar="FOLDER",
        help="keep the kernel of more than 3,000 rows in a file in this folder, where memory does "
        'not hold it; "processes" divides that of exact among the processes of --distributed',
    )
    add_optional_count(model, "--members", "networks of ensemble (default: 32)")
    add_optional_count(
        model,
        "--batch-size",
        "train ensemble in mini-batches of so many rows, by Adam, for tables of any length "
        "(default: on all rows at once, to convergence)",
    )
    add_optional_count(
        model, "--epochs", f"passes over the rows in mini-batches (default: {_EPOCHS})"
    )
    model.add_argument(
        "--sampler",
        choices=SAMPLERS,
        help="how bayes finds the posterior: "
        + "; ".join(f"{name}: {title}" for name, title in SAMPLERS.items())
        + " (default: nuts)",
    )
    add_optional_count(model, "--chains", "chains of bayes (default: 2)")
    add_optional_count(model, "--warmup", "draws of each chain thrown away (default: 500)")
    add_optional_count(model, "--samples", "draws of each chain kept (default: 500)", least=4)
    model.add_argument(
        "--class-weight",
        type=class_weight,
        action="append",
        metavar="CLASS=W",
        help='weight of the rows of a class, may be repeated; "balanced" gives all classes the '
        "same sum",
    )


def _add_decisions(group: Any) -> None:
    group.add_argument(
        "--conformal",
        type=level,
        metavar="P",
        help="hold out a fifth of the rows, and take from it what makes prediction sets, or "
        "intervals, hold the truth with probability P, 0.9 for example",
    )
    group.add_argument(
        "--sets",
        choices=("class", "all", "adaptive"),
        help="whom the sets serve: class promises P for each class, all on average over all rows, "
        "by the smallest sets, adaptive on average, by sets that grow where the model is unsure; "
        "none is empty (default: class)",
    )
    group.add_argument(
        "--intervals",
        choices=("symmetric", "asymmetric"),
        help="asymmetric: either side of an interval keeps half of the promise, for skewed numbers "
        "(default: symmetric)",
    )
    group.add_argument(
        "--threshold",
        type=threshold,
        metavar="T",
        help="decide between two classes from this probability on; precision=0.9 or recall=0.9 "
        "finds it from a fifth of the rows, so that the share is kept with confidence 0.95",
    )
    group.add_argument(
        "--positive",
        metavar="CLASS",
        help="the class that the threshold is of (default: the second in order)",
    )
    group.add_argument(
        "--cost",
        type=cost,
        action="append",
        metavar="TRUE:DECISION=C",
        help="what a decision costs where the class is TRUE (* for any), 0 where nothing is said; "
        "DECISION may be reject; may be repeated",
    )
    group.add_argument(
        "--reject",
        type=level,
        metavar="SHARE",
        help="leave the most uncertain rows to someone else, at most this share, with confidence "
        "0.95, from a fifth of the rows",
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
    output.add_argument(
        "--checkpoint",
        metavar="FOLDER",
        help="keep finished networks of ensemble, or draws of ntk for many rows, in this folder: "
        "the same command after an interrupt goes on from there",
    )


def run(arguments: argparse.Namespace) -> None:
    """Fit a model to the table, and save it."""
    options = _producer_options(arguments)
    plan = _plan(arguments)
    check_output(arguments.output, arguments.table)

    # What is wrong with the table is said before the seconds that JAX takes to import.
    import numpy as np

    from ntk_uq.tables.columns import guess_task
    from ntk_uq.tables.frames import check_held_out, model_frame
    from ntk_uq.tables.places import check_columns
    from ntk_uq.tables.plan import DecisionPlan, check_plan
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
    frame = model_frame(
        table, target, task, drop=drop, categorical=categorical, weight=arguments.weight, name=name
    )
    options |= _class_weights(arguments.class_weight, frame)
    if (task == "classification" and arguments.intervals) or (
        task == "regression" and (arguments.sets or plan is not None)
    ):
        raise ValueError(
            f"--intervals are of numbers, --sets and decisions of classes; this is {task}"
        )

    decide = None if plan is None else DecisionPlan(**plan)
    if decide is not None:
        check_plan(decide, np.unique(frame.y))
    n_held_out = 0
    if arguments.conformal is not None or (decide is not None and decide.needs_held_out):
        n_held_out = check_held_out(frame.y, frame.task, arguments.conformal, name)

    from ntk_uq.persistence import save
    from ntk_uq.tables.model import fit_frame

    n_train = len(frame.y) - n_held_out
    estimator = _new_estimator(arguments.producer, task, _with_optimizer(options, n_train))
    _check_method(arguments, estimator)
    _check_memory(arguments, frame, estimator)
    _say_cost(arguments, frame, options)
    model = fit_frame(
        frame,
        estimator,
        conformal=arguments.conformal,
        sets=arguments.sets or "class",
        intervals=arguments.intervals or "symmetric",
        decide=decide,
        seed=arguments.seed,
    )
    with warnings.catch_warnings():
        # That no optimizer is saved: the shell fits anew.
        warnings.filterwarnings("ignore", "The optimizer is made of functions")
        save(model, arguments.output)
    print(_summary(model, len(table)))
    print(f"The model is in {arguments.output}")


def _producer_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Arguments of the estimator; an error for options that it does not have."""
    own = _PRODUCERS[arguments.producer][1]
    for producer, (_, others) in _PRODUCERS.items():
        for option in others:
            if option not in own and getattr(arguments, option.replace("-", "_")) is not None:
                raise ValueError(
                    f"--{option} belongs to --producer {producer}; {arguments.producer} has "
                    f"{', '.join(f'--{name}' for name in own)}"
                )
    if isinstance(arguments.reg, str) and arguments.producer != "ntk":
        raise ValueError(
            f"--reg {arguments.reg} belongs to --producer ntk; {arguments.producer} takes a number"
        )
    given = {
        argument: getattr(arguments, option.replace("-", "_")) for option, argument in own.items()
    }
    given |= {"reg": arguments.reg}
    if arguments.producer == "ensemble":
        if arguments.batch_size is None and arguments.epochs is not None:
            raise ValueError("--epochs counts passes over the data in mini-batches: --batch-size")
        if arguments.batch_size is not None and arguments.epochs is None:
            given["max_iter"] = _EPOCHS
    if arguments.storage == "processes" and not arguments.distributed:
        raise ValueError("--storage processes divides the kernel among those of --distributed")
    if arguments.network:
        given["architecture"] = own_network(arguments.network)
    return {k: v for k, v in given.items() if v is not None} | {"random_state": arguments.seed}


def _plan(arguments: argparse.Namespace) -> dict[str, Any] | None:
    """What is decided, or None."""
    if arguments.threshold is not None and arguments.cost is not None:
        raise ValueError("--threshold and --cost are two ways to decide: give one")
    if arguments.positive is not None and arguments.threshold is None:
        raise ValueError("--positive says of which class --threshold is: give that too")
    if (arguments.sets or arguments.intervals) and arguments.conformal is None:
        raise ValueError("--sets and --intervals say how --conformal works: give that too")
    plan = {
        "threshold": arguments.threshold,
        "positive": arguments.positive,
        "costs": arguments.cost and dict(arguments.cost),
        "reject": arguments.reject,
    }
    return None if all(value is None for value in plan.values()) else plan


def _class_weights(given: list[tuple[str, float] | str] | None, frame: Any) -> dict[str, Any]:
    """The estimator's argument."""
    if given is None:
        return {}
    if frame.task == "regression":
        raise ValueError("--class-weight is for classes, and this is regression; see --weight")
    if "balanced" in given:
        if len(given) > 1:
            raise ValueError("--class-weight balanced is of all classes: give it alone")
        return {"class_weight": "balanced"}
    import numpy as np

    from ntk_uq.tables.cells import meaning

    classes = {meaning(str(c)): c for c in np.unique(frame.y).tolist()}
    weights = {}
    for name, value in (pair for pair in given if isinstance(pair, tuple)):
        if meaning(name) not in classes:
            raise ValueError(
                f"--class-weight {name}: there is no such class; the classes are "
                f"{', '.join(classes)}"
            )
        weights[classes[meaning(name)]] = value
    return {"class_weight": weights}


def _with_optimizer(options: dict[str, Any], n: int) -> dict[str, Any]:
    """What mini-batches need, whose size is given."""
    if "batch_size" not in options:
        return options
    import optax

    size = min(options["batch_size"], n)
    steps = options["max_iter"] * max(1, n // size)
    optimizer = optax.adam(optax.cosine_decay_schedule(_LEARNING_RATE, steps))
    return options | {"batch_size": size, "optimizer": optimizer}


def _check_method(arguments: argparse.Namespace, estimator: Any) -> None:
    """Refuse options that the method does not have, which may be the task's own."""
    for option, methods in _OF_METHODS.items():
        if getattr(arguments, option) is not None and estimator.method not in methods:
            raise ValueError(
                f"--{option} belongs to --method {' and '.join(methods)}; this is "
                f"{estimator.method}"
            )


def _check_memory(arguments: argparse.Namespace, frame: Any, estimator: Any) -> None:
    """Say what the infinite ensemble takes, where that is much, before it is taken."""
    if arguments.producer != "ntk":
        return
    import numpy as np

    from ntk_uq._common.machine import free_memory

    n, features = frame.features.shape
    outputs = len(np.unique(frame.y)) if frame.task == "classification" else 1
    size = (n, outputs, features)
    needed = estimator.memory(*size)
    free = free_memory()
    if needed > _WORTH_SAYING * free or n >= _MANY_ROWS:
        gib = (
            f"{n:,} rows take about {needed / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB of memory"
        )
        instead = f"Finite networks in mini-batches take far less: {_in_batches(arguments)}"
        if needed > free:
            raise MemoryError(f"{gib} are free. {_in_a_file(estimator, size, needed)}{instead}")
        say(f"{gib} are free; the time grows with the square of the rows. {instead}")


def _in_a_file(estimator: Any, size: tuple[int, int, int], needed: int) -> str:
    """What remains to be held if the kernel stands in a file, where that helps."""
    from sklearn.base import clone

    if estimator.storage is not None:
        return ""
    rest = clone(estimator).set_params(storage=".").memory(*size)
    if rest >= needed:
        return ""
    return f"With the kernel in a file, --storage FOLDER, it is {rest / 2**30:.1f} GiB. "


def _say_cost(arguments: argparse.Namespace, frame: Any, options: dict[str, Any]) -> None:
    """Say what sampling takes, where that is long, before it starts; `fit` refuses what is more."""
    if arguments.producer != "bayes":
        return
    import numpy as np

    from ntk_uq.bayes.cost import estimate_cost
    from ntk_uq.bayes.samplers import DrawSampler, sampler_named
    from ntk_uq.estimators.bayesian import BayesianClassifier

    usual = BayesianClassifier()
    sampler = sampler_named(options.get("sampler", usual.sampler), "--sampler takes")
    if options.get("prior", usual.prior) == "weights" or not isinstance(sampler, DrawSampler):
        return
    counts = {
        name: options.get(name, getattr(usual, name))
        for name in ("num_warmup", "num_samples", "num_chains")
    }
    n, outputs = len(frame.y), len(np.unique(frame.y)) if frame.task == "classification" else 1
    cost = estimate_cost(n, outputs, sampler=sampler.name, **counts)
    if cost.seconds > _LONG:
        say(f"{sampler.title} on {n:,} rows takes {cost}")


def _in_batches(arguments: argparse.Namespace) -> str:
    """A command that can be pasted."""
    words = ["ntk-uq", "fit", arguments.table, "--target", arguments.target]
    for option in _IN_BATCHES:
        value = getattr(arguments, option)
        if value not in (None, 0, "auto", "cv", "evidence"):  # 0 is the usual seed
            words += [f"--{option}", str(value)]
    for option in ("drop", "categorical", "missing"):
        for value in getattr(arguments, option):
            words += [f"--{option}", value]
    for option, usual in (("separator", None), ("decimal", ".")):
        if getattr(arguments, option) != usual:
            words += [f"--{option}", getattr(arguments, option)]
    if arguments.threshold is not None:
        kind = arguments.threshold
        words += ["--threshold", "=".join(map(str, kind)) if isinstance(kind, tuple) else str(kind)]
    for (truth, decision), value in arguments.cost or ():
        words += ["--cost", f"{truth}:{decision}={value:g}"]
    for given in arguments.class_weight or ():
        words += ["--class-weight", given if isinstance(given, str) else f"{given[0]}={given[1]:g}"]
    words += ["--producer", "ensemble", "--batch-size", "256", "-o", str(arguments.output)]
    return shlex.join(words)


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
    count = len(model.numeric)
    used = f"{count} column{'s' * (count != 1)} of numbers, {len(model.categorical)} of categories"
    depth, reg = (
        getattr(estimator.architecture_, "depth", None),
        getattr(estimator, "reg_", estimator.reg),
    )
    network = f"reg = {reg:.3g}"
    if depth is not None:
        network += f", {depth} hidden layer{'s' if depth > 1 else ''}"
    mixture = getattr(estimator, "mixture_", None)
    if mixture is not None and len(mixture.components) > 1:
        network += f", the first of a mixture of {len(mixture.components)} networks"
    if (label_weight := getattr(estimator, "label_weight_", 1.0)) != 1:
        network += f", each label counts {label_weight:,.0f} times"
    if hasattr(estimator, "reg_curve_"):
        curve = estimator.reg_curve_
        network += f", chosen by {CRITERIA[curve.criterion]} from {curve.n_points:,} of the rows"
    lines = [f"{type(estimator).__name__}: {n_rows:,} rows, {used}, {target}", network]
    rule = model.conformal
    if rule is not None and model.task == "classification":
        held_out = ", ".join(
            f"{c}: {n}" for c, n in zip(estimator.classes_, rule.counts, strict=True)
        )
        lines.append(
            f"Prediction sets: {rule.guarantee}, by rows that were held out ({held_out}). None is "
            "empty."
        )
    elif rule is not None:
        sides = (
            f"{rule.below:.3g} standard deviations below and {rule.above:.3g} above the mean"
            if rule.asymmetric
            else f"{rule.above:.3g} standard deviations to either side"
        )
        lines.append(f"Intervals: {rule.guarantee}, by rows that were held out ({sides})")
    if model.decisions is not None:
        lines += model.decisions.words(estimator.classes_)
    return "\n".join(lines)
