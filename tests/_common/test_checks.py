"""What is no number, label or probability is refused by name; what is one comes back unchanged."""

import jax
import numpy as np
import pytest

from ntk_uq._common import checks

HALVES = [[0.5, 0.5], [0.25, 0.75]]


def test_what_is_right_comes_back():
    np.testing.assert_array_equal(checks.probabilities(HALVES), HALVES)
    np.testing.assert_array_equal(checks.probabilities([HALVES] * 3, members=True), [HALVES] * 3)
    assert checks.count("n", np.int64(3)) == 3
    assert checks.real("reg", np.float32(0.5), 0.0) == 0.5
    assert checks.level_between("level", 0.9) == 0.9
    np.testing.assert_array_equal(checks.numbers("scores", [1, 2]), [1.0, 2.0])


def test_labels_are_found_in_their_columns():
    columns, classes = checks.class_columns(["b", "a", "c"], (3, 3), ["a", "b", "c"])
    np.testing.assert_array_equal(columns, [1, 0, 2])
    np.testing.assert_array_equal(classes, ["a", "b", "c"])
    columns, classes = checks.class_columns([2, 0], (2, 3), None)
    np.testing.assert_array_equal(columns, [2, 0])
    np.testing.assert_array_equal(classes, [0, 1, 2])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: checks.probabilities([0.5, 0.5]), r"shape \[m, C\] .* got \(2,\)"),
        (lambda: checks.probabilities([HALVES]), r"got \(1, 2, 2\)"),
        (lambda: checks.probabilities([[2.0, -1.0]]), "logits must go through softmax"),
        (lambda: checks.probabilities([[0.5, 0.6]]), "sum to one"),
        (lambda: checks.class_columns([0], (2, 2), None), r"shape \(2,\) .* got \(1,\)"),
        (lambda: checks.class_columns([0, 1], (2, 2), [1, 0]), "sorted and distinct"),
        (lambda: checks.class_columns(["1", "0"], (2, 2), None), "labels that are no class"),
        (lambda: checks.class_columns([0, 7], (2, 2), None), r"no class: \[7\]"),
        (lambda: checks.numbers("scores", [[1.0]]), r"scores must have shape \[m\]"),
        (lambda: checks.numbers("scores", [np.nan]), "scores holds values that are NaN"),
        (lambda: checks.numbers("scores", np.array(["2020-01-01"], "M8[D]")), "is a date"),
        (lambda: checks.count("n", True), "n must be an integer, at least 1; got True"),
        (lambda: checks.count("n", 1.0), "n must be an integer"),
        (lambda: checks.count("n", 3, least=4), "at least 4; got 3"),
        (lambda: checks.real("reg", np.inf, 0.0), "reg must be a finite number"),
        (lambda: checks.real("reg", -1, 0.0), "reg must be at least 0"),
        (lambda: checks.level_between("level", 1), "level must lie between 0 and 1"),
        (lambda: checks.key(0), r"jax\.random\.key\(0\); got 0"),
        (lambda: checks.key(jax.random.split(jax.random.key(0))), "must be one PRNG key"),
        (lambda: checks.uncertainty("prior"), "uncertainty must be"),
    ],
)
def test_what_is_wrong_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
