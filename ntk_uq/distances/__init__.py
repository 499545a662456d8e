r"""Distances between two predictive distributions, and what Monte-Carlo error makes of them.

The first half takes arrays: `kl_divergence`, `bures_wasserstein`, `energy_distance`,
`rank_correlation`, `rejection_overlap` (total variation is in `ntk_uq.metrics`). The second half
takes two predictions and returns an `Estimate`: the distance, its standard error from the finite
number of draws of both, and the value that this error alone would give. Draws are first averaged in
contiguous batches, so that the autocorrelation of chains is counted; and draw s of one method may
depend on draw s of the other, as those of estimators with one `random_state` do. docs/theory:
"Distance between two predictions".
"""

from ntk_uq.distances.arrays import (
    bures_wasserstein,
    energy_distance,
    kl_divergence,
    rank_correlation,
    rejection_overlap,
)
from ntk_uq.distances.estimate import Estimate
from ntk_uq.distances.measures import Distance, distances
from ntk_uq.distances.prepared import PreparedPrediction

# Its earlier name.
Draws = PreparedPrediction

__all__ = [
    "Distance",
    "Draws",
    "Estimate",
    "PreparedPrediction",
    "bures_wasserstein",
    "distances",
    "energy_distance",
    "kl_divergence",
    "rank_correlation",
    "rejection_overlap",
]
