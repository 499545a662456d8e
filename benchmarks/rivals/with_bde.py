"""Bayesian deep ensembles: run by against_rivals.py, in sklearn-contrib-bde's own environment.

Sizes are those of the package's classification example, with twice its members; the width of the
prior is chosen by the log loss of a fifth of the training points.
"""

import os

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=1")

import numpy as np
from _held_out import run
from bde import BdeClassifier
from bde.loss import CategoricalCrossEntropy
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split

SCALES = (0.3, 1.0)


def chosen(x, y):
    parts = train_test_split(x, y, test_size=0.2, stratify=y, random_state=0)
    losses = []
    for scale in SCALES:
        proba = fitted(parts[0], parts[2], parts[1], scale)
        losses.append(log_loss(parts[3], proba, labels=np.unique(y)))
    return SCALES[int(np.argmin(losses))]


def fitted(x, y, unseen, scale):
    model = BdeClassifier(
        n_members=8,
        hidden_layers=[16, 16],
        loss=CategoricalCrossEntropy(),
        epochs=1000,
        patience=10,
        warmup_steps=400,
        n_samples=100,
        n_thinning=1,
        prior_family="normal",
        prior_kwargs={"scale": scale},
    )
    model.fit(x=x.astype("float32"), y=y.astype("int32"))
    proba = np.asarray(model.predict_proba(unseen.astype("float32")), float)
    return proba / proba.sum(axis=1, keepdims=True)


def probabilities(x, y, unseen):
    return fitted(x, y, unseen, chosen(x, y))


if __name__ == "__main__":
    run(__doc__, {"sklearn-contrib-bde": probabilities})
