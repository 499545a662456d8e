"""A warning names the line from which the package was called."""

import warnings

from small_problem import LABELS, NET, X

from ntk_uq import BayesianClassifier
from ntk_uq._common.warnings import (
    ConvergenceWarning,
    SamplingWarning,
    unsaid,
    warn_once,
    warn_user,
)


def test_the_line_of_the_user():
    model = BayesianClassifier(NET, prior="nngp", reg=2.0, sampler="laplace")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(X, LABELS)
    (found,) = [w for w in caught if "reg=2.0 has no effect" in str(w.message)]
    assert found.filename == __file__


def test_what_several_steps_find_is_said_once():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):  # what a user does twice is said twice
            with warn_once():
                warn_user("as text")
                with warn_once(), unsaid(SamplingWarning):
                    warn_user("as text")
                    warn_user("said by the caller", SamplingWarning)
                warn_user("as text", ConvergenceWarning)
    once = [("as text", UserWarning), ("as text", ConvergenceWarning)]
    assert [(str(w.message), w.category) for w in caught] == 2 * once
