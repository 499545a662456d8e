"""A problem for tests that need any: equal shapes and networks are programs compiled once."""

import numpy as np

from ntk_uq import MLP

N, D, C = 12, 3, 3
RNG = np.random.default_rng(0)
X, X_TEST = RNG.normal(size=(N, D)), RNG.normal(size=(8, D))
LABELS = np.arange(N) % C
TARGET = X[:, 0] + 0.1 * RNG.normal(size=N)
NET = MLP(width=8, depth=1, activation="erf")  # smooth: so narrow a relu network ends on kinks
# Chains that are sampled by one program.
FEW = {"num_warmup": 20, "num_samples": 20, "num_chains": 2}
