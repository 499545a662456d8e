"""What a file does not hold, and is given again: networks and optimizers of the user's own."""

import numpy as np
import optax
import pytest
from flax import nnx
from saved_models import LABELS, NET, X_TEST, X, assert_same_predictions, fit, round_trip
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import ntk_uq as nuq


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ntk_uq.ensemble.ConvergenceWarning")
def test_optimizer_is_left_out_and_said(tmp_path):
    estimator = nuq.EnsembleClassifier(NET, n_members=2, optimizer=optax.sgd(0.1), max_iter=2)
    estimator.fit(X, LABELS)
    with pytest.warns(UserWarning, match=r"optimizer .* left out .* set_params"):
        again = round_trip(estimator, tmp_path)
    assert again.optimizer is None
    assert_same_predictions(estimator, again)


class Wide(nnx.Module):
    def __init__(self, in_features, out_features, *, rngs, scale=1.0):
        self.linear = nnx.Linear(in_features, out_features, rngs=rngs)
        self.scale = scale

    def __call__(self, x):
        return self.scale * self.linear(x)


def wider(*sizes, rngs):
    return Wide(*sizes, rngs=rngs, scale=2.0)


class OfUsers(nuq.MLP):
    """Kernels as MLP's."""


@pytest.mark.cases(1)
@pytest.mark.parametrize(
    ("estimator", "other"),
    [
        (
            nuq.EnsembleClassifier(nuq.Architecture(Wide), n_members=2),
            nuq.Architecture(wider),
        ),
        (nuq.NTKClassifier(OfUsers(width=8), method="gaussian"), OfUsers(width=8, b_std=0.2)),
    ],
    ids=["ensemble", "ntk"],
)
def test_an_architecture_of_the_users_is_given_again(estimator, other, tmp_path):
    estimator.fit(X, LABELS)
    again = round_trip(estimator, tmp_path, architecture=estimator.architecture)
    assert_same_predictions(estimator, again)
    path = tmp_path / "model.ntk"
    with pytest.raises(ValueError, match=r"give the same one, nuq\.load\(path, architecture="):
        nuq.load(path)
    with pytest.raises(ValueError, match=r"is not the one .* was fitted with: its network differs"):
        nuq.load(path, architecture=other)
    with pytest.raises(ValueError, match="takes an ntk_uq architecture"):
        nuq.load(path, architecture=Wide)


def test_an_architecture_that_is_held_is_not_given(tmp_path):
    with pytest.raises(ValueError, match="holds its architecture"):
        round_trip(fit(nuq.NTKClassifier, {"reg": 1.0}), tmp_path, architecture=NET)


def test_pipeline_with_a_network_of_the_users(tmp_path):
    net = nuq.Architecture(Wide)
    pipeline = make_pipeline(StandardScaler(), nuq.EnsembleClassifier(net, n_members=2))
    pipeline.fit(X, LABELS)
    again = round_trip(pipeline, tmp_path, architecture=net)
    np.testing.assert_array_equal(again.predict_proba(X_TEST), pipeline.predict_proba(X_TEST))
