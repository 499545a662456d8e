"""A warning names the line from which the package was called."""

import warnings

from ntk_uq import MLP, BayesianClassifier


def test_the_line_of_the_user():
    model = BayesianClassifier(MLP(), prior="nngp", reg=2.0, sampler="laplace")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit([[-1.0], [1.0]], [0, 1])
    (found,) = [w for w in caught if "reg=2.0 has no effect" in str(w.message)]
    assert found.filename == __file__
