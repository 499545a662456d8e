"""The columns of a comparison's table: what each number is, how it is had, and in which words.

Distances from the reference are those of `ntk_uq.distances`, which says the same of them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Literal

from ntk_uq.distances.measures import MEASURES, Measure, Words

if TYPE_CHECKING:  # made of columns
    from ntk_uq.compare.comparison import Comparison

Number = Callable[["Comparison", str], float]


@dataclass(frozen=True)
class Column:
    """A number for each method.

    Attributes
    ----------
    name : str
        In `Comparison.table`.
    words : Words
        How the report shows it.
    value : function of a comparison and the name of a method
        The number.
    se : function of the same, optional
        Its Monte-Carlo standard error: a column of its own, ``<name>_se``.
    better : {"higher", "lower"}, optional
        Which way is better, if one is.
    task : {"classification", "regression"}, optional
        Of which it is, if not of both.
    needs : {"labels", "reference"}, optional
        Without what it is unknown.
    is_duration : bool
        Whether it is in seconds.
    """

    name: str
    words: Words
    value: Number
    se: Number | None = None
    better: Literal["higher", "lower"] | None = None
    task: Literal["classification", "regression"] | None = None
    needs: Literal["labels", "reference"] | None = None
    is_duration: bool = False

    def is_known(self, comparison: "Comparison") -> bool:
        """Whether a comparison has it."""
        task = "regression" if comparison.classes is None else "classification"
        there = {"labels": comparison.y_test, "reference": comparison.reference, None: True}
        return self.task in (task, None) and there[self.needs] is not None


def _score(name: str) -> Number:
    return lambda comparison, method: comparison.scores[method][name]


def _mean(name: str) -> Number:
    return lambda comparison, method: float(getattr(comparison.methods[method], name).mean())


def _attribute(name: str) -> Number:
    return lambda comparison, method: getattr(comparison.methods[method], name)


def _from_reference(path: str) -> Number:
    """Such as ``tv.se``, of the distance from the reference."""

    def number(comparison: "Comparison", method: str) -> float:
        assert comparison.reference is not None
        return attrgetter(path)(comparison.distance(method, comparison.reference))

    return number


def _columns_of(name: str, measure: Measure) -> Iterator[Column]:
    column = measure.column or name
    task: Literal["classification"] | None = "classification" if measure.classes_only else None
    if measure.words is not None:
        yield Column(
            column,
            measure.words,
            _from_reference(f"{name}.value"),
            _from_reference(f"{name}.se"),
            task=task,
            needs="reference",
        )
    if measure.noise is not None:
        yield Column(
            f"{column}_noise",
            measure.noise,
            _from_reference(f"{name}.noise"),
            task=task,
            needs="reference",
        )


_SCORES = (
    Column(
        "accuracy",
        Words(
            "Accuracy",
            "Fraction of test points whose most probable class is the true one. Higher is better.",
        ),
        _score("accuracy"),
        better="higher",
        task="classification",
        needs="labels",
    ),
    Column(
        "log_loss",
        Words(
            "Log loss, nats",
            "Mean of −log of the probability given to the true class. Punishes confident mistakes; "
            "lower is better.",
        ),
        _score("log_loss"),
        better="lower",
        task="classification",
        needs="labels",
    ),
    Column(
        "brier",
        Words(
            "Brier score",
            "Mean squared distance between the class probabilities and the true class. Lower is "
            "better.",
        ),
        _score("brier"),
        better="lower",
        task="classification",
        needs="labels",
    ),
    Column(
        "ece",
        Words(
            "Calibration error (ECE)",
            "Mean gap between confidence and accuracy over 15 bins of confidence. Zero would be "
            "perfect; chance alone keeps it above zero, so small differences mean little.",
        ),
        _score("ece"),
        better="lower",
        task="classification",
        needs="labels",
    ),
    Column(
        "rmse",
        Words(
            "Root mean squared error",
            "Of the predictive mean, in the target's unit. Lower is better.",
        ),
        _score("rmse"),
        better="lower",
        task="regression",
        needs="labels",
    ),
    Column(
        "crps",
        Words(
            "CRPS",
            "Continuous ranked probability score, in the target's unit: an absolute error of the "
            "whole distribution. Lower is better.",
        ),
        _score("crps"),
        better="lower",
        task="regression",
        needs="labels",
    ),
    Column(
        "nlpd",
        Words(
            "Negative log density, nats",
            "Mean of −log of the density given to the target. Punishes confident mistakes; lower "
            "is better.",
        ),
        _score("nlpd"),
        better="lower",
        task="regression",
        needs="labels",
    ),
)
_UNCERTAINTIES = (
    Column(
        "total_uncertainty",
        Words(
            "Total uncertainty, nats",
            "Entropy of the predicted class probabilities, mean over test points: all there is to "
            "be unsure about. The sum of the next two.",
        ),
        _mean("total_uncertainty"),
    ),
    Column(
        "aleatoric",
        Words(
            "Aleatoric, nats",
            "The part that would remain if the right network were known: mean entropy of the "
            "single draws.",
        ),
        _mean("aleatoric"),
    ),
    Column(
        "epistemic",
        Words(
            "Epistemic, nats",
            "The part that comes from not knowing which network is right: how much the draws "
            "disagree (mutual information). After ±: Monte-Carlo standard error.",
        ),
        _mean("epistemic"),
        _attribute("epistemic_se"),
    ),
)
_COSTS = (
    Column(
        "n_effective",
        Words(
            "Effective draws",
            "Independent draws that would give the same Monte-Carlo errors; draws of a Markov "
            "chain repeat each other. A closed form has none.",
            digits=0,
        ),
        _attribute("n_effective"),
    ),
    Column(
        "effective_per_second",
        Words(
            "Effective draws a second",
            "Of fitting and predicting, compilation included.",
            digits=1,
        ),
        _attribute("effective_per_second"),
        better="higher",
    ),
    Column(
        "fit_seconds",
        Words("Time to fit", "Wall-clock time, compilation included."),
        _attribute("fit_seconds"),
        better="lower",
        is_duration=True,
    ),
    Column(
        "predict_seconds",
        Words(
            "Time to predict",
            "Wall-clock time for the distribution at all test points, compilation included.",
        ),
        _attribute("predict_seconds"),
        better="lower",
        is_duration=True,
    ),
)
COLUMNS = (
    *_SCORES,
    *_UNCERTAINTIES,
    *(column for row in MEASURES.items() for column in _columns_of(*row)),
    *_COSTS,
)
