"""Decisions of a model: what is promised is kept, also together."""

import numpy as np
from scipy.special import entr

from ntk_uq.tables.decisions import decisions_from
from ntk_uq.tables.plan import DecisionPlan

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
