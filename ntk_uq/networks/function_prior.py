"""The Gaussian process over functions that is the prior of an infinitely wide network."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ntk_uq.networks.architecture import BaseArchitecture, Kernels

__all__ = ["FunctionPrior"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class FunctionPrior:
    r"""Gaussian process over functions, independent and alike for all outputs.

    Attributes
    ----------
    architecture : BaseArchitecture
        The network whose kernel it has.
    kernel : {"ntk", "nngp"}
        "ntk": GP(0, Theta / reg), to which the regularised network belongs. "nngp": GP(0, K), the
        network's functions with parameters N(0, I).
    reg : float
        Regularisation, of which "nngp" knows nothing.

    Examples
    --------
    >>> import numpy as np
    >>> from ntk_uq import MLP
    >>> from ntk_uq.networks import FunctionPrior
    >>> X = np.array([[-1.0], [1.0]])
    >>> wide, narrow = (FunctionPrior(MLP(), "ntk", reg) for reg in (1.0, 4.0))
    >>> bool(np.all(wide.covariance(X) == 4 * narrow.covariance(X)))
    True
    """

    architecture: BaseArchitecture
    kernel: Literal["ntk", "nngp"]
    reg: float

    def covariance(self, X1: ArrayLike, X2: ArrayLike | None = None) -> Floats:
        """Covariance between points, [n1, n2]; of `X1` with itself without `X2`."""
        return self._of(self.architecture.kernels(X1, X2))

    def variance(self, X: ArrayLike) -> Floats:
        """Variance at each of n points: [n]."""
        return self._of(self.architecture.kernel_diag(X))

    def _of(self, kernels: Kernels) -> Any:
        return kernels.ntk / self.reg if self.kernel == "ntk" else kernels.nngp
