"""A regularisation that is too strong is said so; labels without meaning are another thing."""

import warnings

import numpy as np
import pytest
from sklearn.datasets import load_digits
from small_problem import LABELS, NET, TARGET, X

import ntk_uq as nuq
from ntk_uq.estimators.strength import share_of_targets

RNG = np.random.default_rng(0)


def test_the_share_is_the_inverse_of_a_slope():
    """By least squares, also of weighted points, which are repetitions."""
    y, f = RNG.normal(size=(2, 20))
    f = 0.2 * y + 0.01 * f
    slope = np.polyfit(f, y, 1)[0]
    assert share_of_targets(y[:, None], f[:, None]) == pytest.approx(1 / slope)
    counts = np.arange(20) % 3
    slope = np.polyfit(np.repeat(f, counts), np.repeat(y, counts), 1)[0]
    assert share_of_targets(y[:, None], f[:, None], counts) == pytest.approx(1 / slope)
    assert share_of_targets(y[:, None], -f[:, None]) == np.inf


@pytest.mark.parametrize(
    "model",
    [
        nuq.EnsembleClassifier(NET, n_members=2, reg=1e4, uncertainty="none"),
        nuq.NTKClassifier(NET, reg=1e4, uncertainty="none"),
        nuq.NTKRegressor(NET, reg=20.0, noise=3.0),
        nuq.EnsembleRegressor(NET, n_members=2, reg=20.0, noise=3.0, uncertainty="none"),
    ],
    ids=lambda model: type(model).__name__,
)
def test_a_strong_reg_is_named(model):
    y = LABELS if hasattr(model, "class_weight") else TARGET
    with pytest.warns(UserWarning, match=r"Hardly anything is learnt.*vary over"):
        model.fit(X, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.set_params(reg=0.1).fit(X, y)


@pytest.mark.slow
def test_pooled_images_have_little_to_vary_by():
    """Its prior's functions are large, and nearly the same at all images."""
    images, digits = load_digits(return_X_y=True)
    images, digits = images[:60].reshape(-1, 8, 8, 1) / 16, digits[:60]
    model = nuq.NTKClassifier(nuq.ConvNet(width=8), uncertainty="none")
    with pytest.warns(UserWarning, match="reg=1 holds them"):
        model.fit(images, digits)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.set_params(reg=0.01).fit(images, digits)
        model.set_params(reg=1.0, time=0.1).fit(images, digits)  # as was asked for


def test_labels_without_meaning():
    """What little they have is learnt: the data hold the fit back, and not reg."""
    points, labels = RNG.normal(size=(300, 2)), RNG.integers(0, 2, 300)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = nuq.NTKClassifier(NET, reg=1.0, uncertainty="none").fit(points, labels)
    assert model.score(points, labels) < 0.7
