"""A kernel that comes without a network: Gaussian processes as others specify them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from numpy.typing import ArrayLike, NDArray

from ntk_uq._common.progress import Progress
from ntk_uq.networks.architecture import BaseArchitecture, Kernels, as_points

__all__ = ["KernelFunction"]

# What rounding may do to a covariance, of the largest, in single precision and a long sum.
_ROUNDING = 1e-4
# Points among which a kernel is asked to be positive definite: eigenvalues of more take as long as
# a fit.
_PROBES = 200
# Points on a side of the blocks whose diagonals are taken, where a kernel has no `diag`.
_BLOCK = 64


@dataclass(frozen=True)
class KernelFunction(BaseArchitecture):
    """Any covariance function in the place of a network's kernels, NNGP kernel and NTK alike.

    With ``uncertainty="posterior"`` an estimator is then a Gaussian process with this covariance
    divided by `reg`, whose softmax or other likelihood is solved exactly; `reg = 1` leaves it as it
    is. There is no network: finite ensembles need one.

    Parameters
    ----------
    kernel : callable
        ``kernel(X1, X2)`` gives the covariances [n1, n2] of the points [n1, d] and [n2, d] as
        anything that NumPy takes for an array. Kernels of ``sklearn.gaussian_process`` and
        ``sklearn.metrics.pairwise`` are such. Of other packages wrap one, GPyTorch's for example:
        ``lambda a, b: k(torch.tensor(a), torch.tensor(b)).to_dense().detach().numpy()``. Where it
        has ``kernel.diag(X)``, as scikit-learn's do, this gives the variances. Noise is the
        likelihood's, and no part of it.

    Raises
    ------
    ValueError
        If it cannot be called, or is a class; when it is called, if what it gives has another
        shape, is not finite, not symmetric or not positive semidefinite (among 200 of the points),
        or holds noise, as scikit-learn's ``WhiteKernel``.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.gaussian_process.kernels import RBF
    >>> from ntk_uq import KernelFunction
    >>> KernelFunction(RBF(2.0)).kernels(np.array([[0.0], [2.0]])).ntk.round(3)
    array([[1.   , 0.607],
           [0.607, 1.   ]])
    """

    kernel: Callable[..., Any]
    holds_functions: ClassVar[bool] = True
    _standard_normal: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if isinstance(self.kernel, type):
            name = self.kernel.__name__
            raise ValueError(f"kernel is the class {name}: give one of it, kernel={name}(...).")
        if not callable(self.kernel):
            raise ValueError(
                "kernel must be a function of two arrays of points, kernel(X1, X2), as the kernels "
                f"of sklearn.gaussian_process.kernels are; got {self.kernel!r}."
            )

    def module(self, in_features: Any, out_features: int, *, rngs: nnx.Rngs) -> nnx.Module:
        """Refused: there is no network.

        Raises
        ------
        ValueError
            Always.
        """
        raise ValueError(
            "A kernel function has no finite networks. Take NTKClassifier or NTKRegressor, or give "
            "an architecture such as MLP()."
        )

    def kernels(
        self, X1: ArrayLike, X2: ArrayLike | None = None, *, progress: Progress | None = None
    ) -> Kernels:
        """Covariances [n1, n2], twice; see the base class."""
        rows = as_points(X1, "X1", 2)
        covariance = self._covariance(rows, rows if X2 is None else as_points(X2, "X2", 2))
        if X2 is None:
            self._refuse_no_covariance(rows, covariance)
            covariance = (covariance + covariance.T) / 2
        if progress is not None:
            progress(1, 1)
        return Kernels(covariance, covariance.copy())

    def kernel_diag(self, X: ArrayLike) -> Kernels:
        """Variances [n], twice; see the base class."""
        points = as_points(X, "X", 2)
        if hasattr(self.kernel, "diag"):
            variances = np.asarray(self.kernel.diag(points), np.float64)
        else:
            blocks = np.split(points, range(_BLOCK, len(points), _BLOCK))
            variances = np.concatenate([np.diag(self._covariance(b, b)) for b in blocks])
        _refuse_negative(variances)
        return Kernels(variances, variances.copy())

    def kernel_block(self, x1: jax.Array, x2: jax.Array | None = None) -> Kernels:
        """Kernels [n1, n2] as JAX arrays, of points that are not traced."""
        x2 = x1 if x2 is None else x2
        if isinstance(x1, jax.core.Tracer) or isinstance(x2, jax.core.Tracer):
            raise ValueError(
                "A kernel function of NumPy arrays cannot be part of a function of JAX. Use "
                "predict_proba, or an architecture."
            )
        covariance = jnp.asarray(self._covariance(np.asarray(x1), np.asarray(x2)), x1.dtype)
        return Kernels(covariance, covariance)

    def kernel_diag_block(self, x: jax.Array) -> Kernels:
        """Diagonals [n] of the kernels as JAX arrays."""
        kernels = self.kernel_block(x)
        return Kernels(jnp.diagonal(kernels.nngp), jnp.diagonal(kernels.ntk))

    def _refuse_no_covariance(self, X: NDArray, covariance: NDArray) -> None:
        """Of points with themselves: symmetric, definite, and without noise of a point's own."""
        allowed = _ROUNDING * np.max(np.abs(covariance), initial=0.0)
        apart = np.max(np.abs(covariance - covariance.T), initial=0.0)
        if apart > allowed:
            raise ValueError(
                f"kernel(x, z) and kernel(z, x) differ by up to {apart:.3g}: a covariance is "
                "symmetric."
            )
        _refuse_negative(np.diagonal(covariance))
        rows = np.linspace(0, len(X) - 1, min(len(X), _PROBES)).astype(int)
        lowest = np.linalg.eigvalsh(covariance[np.ix_(rows, rows)])[0]
        if lowest < -allowed * len(rows):  # what such roundings do to an eigenvalue at most
            raise ValueError(
                f"kernel(X, X) is no covariance: among {len(rows)} points it has an eigenvalue of "
                f"{lowest:.3g}, and a combination of function values would have a negative "
                "variance. Not every similarity is one, the sigmoid kernel for example."
            )
        if hasattr(self.kernel, "diag"):
            diagonal = np.asarray(self.kernel.diag(X), np.float64)
            if np.max(np.abs(diagonal - np.diagonal(covariance)), initial=0.0) > allowed:
                raise ValueError(
                    "kernel.diag(X) and the diagonal of kernel(X, X) differ: as with WhiteKernel, "
                    "noise stands in the one and not in the other. Leave it out of the kernel; it "
                    "is the likelihood's, noise= of NTKRegressor."
                )

    def _covariance(self, x1: NDArray, x2: NDArray) -> NDArray[np.float64]:
        found = np.asarray(self.kernel(x1, x2), np.float64)
        if found.shape != (len(x1), len(x2)):
            raise ValueError(
                f"kernel(X1, X2) must give the shape [n1, n2], here {(len(x1), len(x2))}; it gave "
                f"{found.shape}."
            )
        if not np.isfinite(found).all():
            raise ValueError("kernel(X1, X2) gave NaN or infinite covariances.")
        return found


def _refuse_negative(variances: NDArray) -> None:
    if np.min(variances, initial=0.0) < 0:
        raise ValueError(
            f"kernel(x, x) is {np.min(variances):.3g} at a point: a variance is not negative. Is "
            "it a distance, or the negative of a kernel?"
        )
