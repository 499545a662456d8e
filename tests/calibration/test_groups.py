"""What was promised and what came, group by group: by hand, and by Wilson's equation."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ntk_uq.calibration import (
    calibration_by_group,
    calibration_of_classes,
    calibration_of_intervals,
)

RNG = np.random.default_rng(0)


def test_groups_by_hand():
    """Each end of an interval is a share from which what was found is as far as chance goes."""
    n = 300
    proba = RNG.dirichlet([1, 1, 1], n)
    labels = np.array(["a", "b", "c"])
    y = labels[RNG.integers(3, size=n)]
    ward = RNG.integers(2, size=n)
    table = calibration_of_classes(y, proba, classes=labels, groups={"ward": ward})
    known = pd.DataFrame(
        {
            "predicted class": labels[proba.argmax(axis=1)],
            "predicted probability": pd.qcut(proba.max(axis=1), 3, labels=False),
            "ward": ward,
            "promised": proba.max(axis=1),
            "found": labels[proba.argmax(axis=1)] == y,
        }
    )
    assert table["points"][0] == n
    for by in ("predicted class", "predicted probability", "ward"):
        found = table[table["by"] == by]
        wanted = known.groupby(by)[["promised", "found"]].agg(["mean", "size"])
        assert found["points"].tolist() == wanted["found", "size"].tolist()
        np.testing.assert_allclose(found["promised"], wanted["promised", "mean"])
        np.testing.assert_allclose(found["found"], wanted["found", "mean"])
    z = stats.norm.ppf(0.995)
    for end in ("lower", "upper"):
        share = table[end].to_numpy()
        far = z * np.sqrt(share * (1 - share) / table["points"])
        np.testing.assert_allclose(np.abs(table["found"] - share), far)


def test_right_forecasts_are_found_right():
    """Of 400 forecasts in three groups each few lie beyond 99%: within 5 standard errors of 1%.

    Wilson's interval holds what is true in 98.5 to 99.5% at such a count and share.
    """
    outside = 0
    for _ in range(400):
        std = RNG.uniform(0.5, 2, 120)
        y = std * RNG.standard_normal(120)
        table = calibration_of_intervals(y, np.zeros(120), std)[1:]
        assert table["points"].tolist() == [40, 40, 40]
        outside += int(np.sum((table["lower"] > 0.9) | (table["upper"] < 0.9)))
    n = 3 * 400
    assert outside / n < 0.015 + 5 * np.sqrt(0.015 / n)
    wide = calibration_of_intervals(3 * y, np.zeros(120), std)
    assert wide["upper"][0] < 0.9


def test_equal_values_share_a_third():
    table = calibration_of_intervals(np.zeros(9), np.zeros(9), np.ones(9))
    assert table["group"].tolist() == ["all", "1 to 1"]


def test_mistakes():
    with pytest.raises(ValueError, match=r"groups\['ward'\] must have shape \(2,\)"):
        calibration_by_group([0.5, 0.5], [True, False], {"ward": [1]})
    with pytest.raises(ValueError, match="came must have shape"):
        calibration_by_group([0.5, 0.5], [True], {})
    with pytest.raises(ValueError, match="m >= 1"):
        calibration_by_group([], [], {})
