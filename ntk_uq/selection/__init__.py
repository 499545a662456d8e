r"""Choosing the regularisation, and the kernel, from the training data alone.

- `log_evidence`: Laplace's approximation of :math:`\log p(Y)`, differentiable in everything that
  it depends on, and `maximise_evidence`, which climbs it. docs/theory: "Choosing `reg`".
- `cross_validate`: log predictive density of held-out points, along a path of regularisations.
- `choose`: an architecture's regularisation by either, with its depth, scales and noise.
- `greedy_weights`: of several networks in the place of one, by held-out points: a `Mixture`.
- `counted_more`: how often the labels of its posterior count.
- `learn_metric`: how much each feature counts, from the gradients of the mode.
- `reg_of_all_points`: what many points say of a regularisation that few of them have chosen.
- `cross_validate_posterior`: the regularisation whose posterior predicts best, by its draws.

Everything follows the dtype of the kernels.
"""

from ntk_uq.selection.all_points import reg_of_all_points
from ntk_uq.selection.choice import Choice, choose
from ntk_uq.selection.cross_validation import cross_validate
from ntk_uq.selection.curve import RegCurve
from ntk_uq.selection.evidence import Optimum, log_evidence, maximise_evidence
from ntk_uq.selection.label_weight import counted_more
from ntk_uq.selection.metric import Metric, learn_metric, mean_squared_gradients
from ntk_uq.selection.mixture import Mixture, greedy_weights
from ntk_uq.selection.noise import estimate_noise
from ntk_uq.selection.posterior import cross_validate_posterior

__all__ = [
    "Choice",
    "Metric",
    "Mixture",
    "Optimum",
    "RegCurve",
    "choose",
    "counted_more",
    "cross_validate",
    "cross_validate_posterior",
    "estimate_noise",
    "greedy_weights",
    "learn_metric",
    "log_evidence",
    "maximise_evidence",
    "mean_squared_gradients",
    "reg_of_all_points",
]
