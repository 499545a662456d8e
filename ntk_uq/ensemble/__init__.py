r"""The finite ensemble: many wide networks, trained side by side over their initialisations.

Member i minimises, over its parameters,

.. math::
    L(\theta) = \sum_j \bigl[-\log p(y_j \mid g(x_j; \theta)) + \varepsilon_j^\top g(x_j; \theta)
                \bigr] + \tfrac{reg}{2} \|\theta - \theta_0\|^2,

a sum over data, from its own :math:`\theta_0`. By `uncertainty`:

- "initialization": g = f, the network, and no label noise :math:`\varepsilon`.
- "none": g = f - f0, a shifted network; every member is a posterior mode.
- "posterior": f0 gives way to a function from the tangent kernel's prior,
  :math:`g = f - f_0 + J \tilde\theta / \sqrt{reg}` with :math:`\tilde\theta \sim N(0, I)`, and
  :math:`\varepsilon_j \sim N(0, W_j)` with the curvature W of the loss at the mode; members are
  approximate posterior samples.

docs/theory: "Objective", "Relation to Bayes", "Training finite networks".
"""

from ntk_uq._common.uncertainty import Uncertainty
from ntk_uq._common.warnings import ConvergenceWarning, LazinessWarning
from ntk_uq.ensemble.linearised import solve_linearised
from ntk_uq.ensemble.producer import FiniteEnsemble, FittedEnsemble
from ntk_uq.ensemble.train import train_ensemble
from ntk_uq.ensemble.trained import PathWarning, TrainedEnsemble

__all__ = [
    "ConvergenceWarning",
    "FiniteEnsemble",
    "FittedEnsemble",
    "LazinessWarning",
    "PathWarning",
    "TrainedEnsemble",
    "Uncertainty",
    "solve_linearised",
    "train_ensemble",
]
