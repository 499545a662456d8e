"""Decisions of a model: what is promised is kept, also together."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import entr

from ntk_uq.tables import fit_table
from ntk_uq.tables.decisions import check_promises, decisions_from
from ntk_uq.tables.plan import DecisionPlan, check_plan

CLASSES = np.array(["no", "yes"])


def _rows(rng, n):
    """A rare class, and probabilities that are right."""
    p = rng.beta(0.5, 3.0, n)
    return CLASSES[(rng.random(n) < p).astype(int)], np.stack([1 - p, p], axis=1)


def test_a_threshold_is_promised_of_what_is_not_rejected():
    """Rejected are the uncertain rows, and among the rare class these are the likely ones."""
    plan = DecisionPlan(threshold=("recall", 0.7), reject=0.2)
    broken, repeats = 0, 300
    for seed in range(repeats):
        rng = np.random.default_rng(seed)
        y, proba = _rows(rng, 400)
        decisions = decisions_from(plan, CLASSES, y, proba, entr(proba).sum(axis=1))
        y, proba = _rows(rng, 4000)
        decided = decisions.decide(proba, entr(proba).sum(axis=1), CLASSES)
        found = decisions.scores(y, decided, CLASSES)["recall"]
        positive = (y == "yes") & (decided != "reject")
        assert found == np.mean(decided[positive] == "yes")
        broken += found < 0.7
    # With confidence 0.95: within three standard errors of these repeats, and of the test rows.
    assert broken <= repeats * 0.05 + 3 * np.sqrt(repeats * 0.05 * 0.95)


@pytest.mark.parametrize("reject", [None, 0.2])
@pytest.mark.parametrize("seed", range(4))
def test_what_no_model_can_promise_is_known_before_there_is_one(seed, reject):
    """Whatever a model's probabilities: they keep the promises that are not refused at once."""
    rng = np.random.default_rng(seed)
    y, proba = _rows(rng, 100)
    plan = DecisionPlan(threshold=("recall", 0.8), reject=reject)
    try:
        check_promises(plan, CLASSES, y)
    except ValueError:
        # Also the best one, whose uncertainty is that of the other class.
        with pytest.raises(ValueError, match="no threshold promises a recall"):
            decisions_from(plan, CLASSES, y, proba, proba[:, 0])
    else:
        perfect = (y[:, None] == CLASSES).astype(float)
        decisions_from(plan, CLASSES, y, perfect, (y == "no") + rng.random(len(y)))


class Unwanted:
    """An estimator that must not be reached."""

    architecture = None

    def fit(self, X, y):
        raise AssertionError("fitted all the same")


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (
            DecisionPlan(threshold=("recall", 0.9)),
            r"promises a recall .* 20 rows .* 10 of them yes",
        ),
        (DecisionPlan(reject=0.01), "20 held-out rows cannot promise"),
    ],
)
def test_it_is_refused_before_the_fit(plan, message):
    table = pd.DataFrame({"x": np.arange(100) ** 0.5, "y": ["no", "yes"] * 50})
    with pytest.raises(ValueError, match=message):
        fit_table(table, "y", Unwanted(), decide=plan)


@pytest.mark.parametrize(
    "plan",
    [
        DecisionPlan(threshold=0.5),
        DecisionPlan(reject=0.3),
        DecisionPlan(costs={("accept", "reject"): 1.0, ("reject", "accept"): 2.0}),
    ],
)
def test_a_class_that_is_called_as_a_decision(plan):
    """Its rows would be told to have been left to someone else."""
    with pytest.raises(ValueError, match="the class 'reject' has the name of the decision"):
        check_plan(plan, np.array(["accept", "reject"]))
