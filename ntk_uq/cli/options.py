"""Options that commands share, the kinds of values that they take, and what is said of mistakes."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from ntk_uq._common.processes import is_first

__all__ = [
    "CRITERIA",
    "SAMPLERS",
    "SHIPPED",
    "STATUS",
    "Parser",
    "add_columns",
    "add_count",
    "add_distributed",
    "add_optional_count",
    "add_reading",
    "check_output",
    "class_weight",
    "cost",
    "integer",
    "level",
    "positive",
    "reading_options",
    "reg_or_criterion",
    "say",
    "threshold",
]

SHIPPED = "digits, iris, wine, breast_cancer"
CRITERIA = {"cv": "cross-validation", "evidence": "the evidence"}
# As `ntk_uq.bayes.samplers` has them, which takes seconds to import.
SAMPLERS = {
    "nuts": "NUTS",
    "ess": "elliptical slices",
    "vi": "variational inference",
    "laplace": "Laplace's approximation",
}

STATUS = """\
exit status: 0, or 2 for a mistake in the arguments or the data, 1 for any other failure,
130 if interrupted
"""


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        """End with exit status 2."""
        self.exit(2, f"{self.prog}: error: {message}\n")


def add_reading(group: Any) -> None:
    """How a table is to be read; `reading_options` takes the values out."""
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


def reading_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """How to read a table."""
    return {option: getattr(arguments, option) for option in ("separator", "decimal", "missing")}


def add_columns(group: Any) -> None:
    """Which columns are features, and which of them hold categories."""
    group.add_argument(
        "--drop",
        action="append",
        default=[],
        metavar="COLUMN",
        help="leave out a column, such as a row's name; may be repeated",
    )
    group.add_argument(
        "--categorical",
        action="append",
        default=[],
        metavar="COLUMN",
        help="take numbers, or text with many values, as categories; may be repeated",
    )


def add_distributed(parser: Any) -> None:
    """That this is one process of several."""
    parser.add_argument_group("several processes").add_argument(
        "--distributed",
        action="store_true",
        help="this is one of several processes that run the same command, started by srun, mpirun "
        "or with JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID: they divide the "
        "work, and the first writes",
    )


def add_count(group: Any, option: str, default: int, text: str, least: int = 1) -> None:
    """An option for a whole number, with the default in its help."""
    group.add_argument(
        option,
        type=integer(least),
        default=default,
        metavar="N",
        help=f"{text} (default: {default})",
    )


def add_optional_count(group: Any, option: str, text: str, least: int = 1) -> None:
    """An option for a whole number that is None where it is not given."""
    group.add_argument(option, type=integer(least), metavar="N", help=text)


def integer(least: int) -> Callable[[str], int]:
    """A parser of whole numbers from `least` on."""

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


def positive(text: str) -> float:
    """A positive number, finite."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no positive number")
    return value


def reg_or_criterion(text: str) -> float | str:
    """A regularisation, or the criterion that chooses it."""
    if text in ("cv", "evidence"):
        return text
    try:
        return positive(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f'{error}, nor "cv" or "evidence"') from None


def level(text: str) -> float:
    """A probability between 0 and 1."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no probability between 0 and 1")
    return value


def threshold(text: str) -> float | tuple[str, float]:
    """A probability, or the share that a threshold shall keep."""
    kind, _, share = text.rpartition("=")
    if kind in ("precision", "recall"):
        return kind, level(share)
    if kind:
        raise argparse.ArgumentTypeError(f"{kind!r} is neither precision nor recall")
    return level(share)


def class_weight(text: str) -> tuple[str, float] | str:
    """A class and its weight, or "balanced"."""
    if text == "balanced":
        return text
    name, _, value = text.rpartition("=")
    if not name:
        raise argparse.ArgumentTypeError(f'{text!r} is neither CLASS=WEIGHT nor "balanced"')
    return name, positive(value)


def cost(text: str) -> tuple[tuple[str, str], float]:
    """What a decision costs where a class is the true one."""
    places, _, value = text.rpartition("=")
    truth, colon, decision = places.partition(":")
    try:
        amount = float(value)
    except ValueError:
        amount = float("nan")
    if not (truth and colon and decision and abs(amount) < float("inf")):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not TRUE:DECISION=COST, yes:no=5 for example: a row of yes that is taken "
            "for no costs 5"
        )
    return (truth, decision), amount


def check_output(path: Path, *inputs: str) -> None:
    """Find out before the work begins, not after."""
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is not a regular file, so it cannot be replaced")
    if path.exists() and any(Path(name).exists() and path.samefile(name) for name in inputs):
        raise ValueError(f"{path} would be overwritten, and it is what is read; give another name")
    if not path.parent.is_dir():
        raise ValueError(f"the folder {path.parent} does not exist; create it first")
    if not os.access(path.parent, os.W_OK):
        raise ValueError(f"the folder {path.parent} cannot be written to")


def say(message: str, everywhere: bool = False) -> None:
    """Write one line to standard error, whatever the message holds.

    Of several processes the first does, or all.
    """
    if not (everywhere or is_first()):
        return
    print(" ".join(message.split()), file=sys.stderr, flush=True)
