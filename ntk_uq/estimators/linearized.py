"""What an estimator's arguments may be, of one trained network."""

from typing import Any

from ntk_uq import analytic
from ntk_uq._common.words import shown

__all__ = ["check_linearized"]


def check_linearized(estimator: Any) -> None:
    """Refuse arguments that are for networks of infinite width, or that data would choose.

    Parameters
    ----------
    estimator : NTKClassifier or NTKRegressor
        Of a `Linearized`.
    """
    analytic.check_time(estimator.time, estimator.uncertainty)
    analytic.check_linearized(estimator.uncertainty, estimator.reg, estimator._stop)
    at_size = estimator.method == "nystrom" or estimator.prior_functions == "networks"
    for name, value in (
        ("tune", estimator.tune),
        ("n_trajectories", estimator._n_corrections),
        ('method="nystrom" or prior_functions="networks"', at_size),
    ):
        if value:
            raise ValueError(
                f"{name} is for networks of infinite width; Linearized is of one network as it "
                f"is. Leave {name} out."
            )
    # Both are chosen by the marginal likelihood or held-out points of a kernel that outputs share.
    if isinstance(estimator.reg, str):
        raise ValueError(
            f"Linearized needs a number for reg, or None, which is 1; got {shown(estimator.reg)}. "
            'With prior_mean="zero" it is the weight decay of the summed loss; for data that the '
            "network has not seen, compare a few by scikit-learn's "
            'GridSearchCV(estimator, {"reg": [0.1, 1.0, 10.0]}).'
        )
    if getattr(estimator, "noise", 1.0) is None:
        raise ValueError(
            "Linearized needs the noise: its standard deviation is not chosen by the data. "
            "That of the network's errors at points it has not seen is a first value."
        )
