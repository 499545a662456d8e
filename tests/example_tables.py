"""A table with gaps and categories, columns as files hold them, and the shell that takes them."""

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin

import ntk_uq as nuq
from ntk_uq.cli import main
from ntk_uq.tables import fit_table

RNG = np.random.default_rng(0)
N = 40
SIZE = RNG.standard_normal(N).round(3)
WEIGHT = (RNG.standard_normal(N) + 3).round(3)
FRAME = pd.DataFrame(
    {
        "size": SIZE,
        "weight": np.where(np.arange(N) % 7 == 0, np.nan, WEIGHT),
        "colour": np.where(np.arange(N) % 5 == 0, None, np.where(SIZE > 0.5, "red", "blue")),
        "sold": np.arange(N) % 2 == 0,
        "y": np.where(SIZE + 0.3 * WEIGHT > 1, "yes", "no"),
        "price": (2 * SIZE + 0.1 * RNG.standard_normal(N)).round(4),
    }
)
CSV = FRAME.to_csv(index=False)
CLASSES = FRAME.drop(columns="price").to_csv(index=False)
FIT = ["fit", "train.csv", "--target", "y"]
QUICK = ["--reg", "1", "--method", "gaussian", "--uncertainty", "none"]


def column(*cells, lines=None):
    """A column of a CSV file."""
    return pd.Series(
        [np.nan if cell is None else cell for cell in cells],
        index=pd.Index(lines or range(2, len(cells) + 2), name="line"),
        dtype=object,
        name="x",
    )


class Saw(ClassifierMixin, BaseEstimator):
    """Keeps what it is given."""

    def fit(self, X, y):
        self.X_, self.classes_ = X, np.unique(y)
        return self


def shell(*arguments):
    """Exit status of the command."""
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return stop.code


def run(arguments, capsys):
    """Exit status of compare, standard output and the lines of standard error."""
    status = shell("compare", *arguments)
    output = capsys.readouterr()
    return status, output.out, output.err.splitlines()


def fitted():
    """The quick model of `QUICK`, in Python."""
    frame = FRAME.drop(columns="price")
    return fit_table(frame, "y", nuq.NTKClassifier(reg=1.0, method="gaussian", uncertainty="none"))
