r"""Is training lazy? How far networks move from their linearisation, measured against width.

The theory replaces a network by its linearisation at the initial parameters. That is right where
training is lazy: where the tangent kernel at the end is the one at the start. docs/theory: "When
training is lazy".
"""

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from ntk_uq._common.progress import Progress
from ntk_uq._common.rules import own_rules
from ntk_uq._common.warnings import ConvergenceWarning
from ntk_uq._common.words import in_a_line
from ntk_uq.ensemble.members import floating
from ntk_uq.ensemble.train import train_ensemble
from ntk_uq.ensemble.trained import linearisation
from ntk_uq.likelihoods import Categorical, Likelihood
from ntk_uq.networks.architecture import BaseArchitecture
from ntk_uq.networks.empirical import empirical_ntk

__all__ = ["Experiment", "Laziness", "Rate", "fit_rate", "kernel_change", "measure_laziness"]

Floats = NDArray[np.float64]

_TITLES = {
    "kernel_change": "kernel change",
    "parameter_distance": "parameters",
    "linearisation_error": "outputs - linear",
    "largest_output": "largest output",
}


class Rate(NamedTuple):
    """Exponent of a power law in the width, and its 95% confidence interval.

    Examples
    --------
    >>> rate = fit_rate([64, 256, 1024], [[0.4, 0.44], [0.2, 0.22], [0.1, 0.11]])
    >>> round(rate.exponent, 2), bool(rate.low < rate.exponent < rate.high)
    (-0.5, True)
    """

    exponent: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.exponent:.2f} [{self.low:.2f}, {self.high:.2f}]"


@in_a_line
@dataclass(frozen=True)
class Laziness:
    r"""How far networks of several widths have moved, for M networks of each width.

    Attributes
    ----------
    widths : array of shape [W]
        Widths.
    kernel_change : array of shape [W, M]
        :math:`\|\Theta_t - \Theta_0\|_F / \|\Theta_0\|_F` of the empirical tangent kernel on the
        probe points.
    parameter_distance : array of shape [W, M]
        :math:`\|\theta_t - \theta_0\|`.
    linearisation_error : array of shape [W, M]
        Largest :math:`|f(x; \theta_t) - f_{lin}(x; \theta_t)|` on the probe points.
    largest_output : array of shape [W, M]
        Largest :math:`|f(x; \theta_t)|` on the probe points.
    n_iter, converged : arrays of shape [W, M]
        Of training.

    Examples
    --------
    >>> import numpy as np
    >>> change = np.array([[0.4], [0.2], [0.1]])  # of one network at each of three widths
    >>> lazy = Laziness(np.array([64, 256, 1024]), *[change] * 6)
    >>> round(lazy.rate("kernel_change").exponent, 2)
    -0.5
    """

    widths: NDArray[np.integer]
    kernel_change: Floats
    parameter_distance: Floats
    linearisation_error: Floats
    largest_output: Floats
    n_iter: NDArray[np.integer]
    converged: NDArray[np.bool_]

    def rate(self, quantity: str = "kernel_change") -> Rate:
        """How a quantity falls (or grows) with width: see `fit_rate`."""
        return fit_rate(self.widths, getattr(self, quantity))

    def to_string(self) -> str:
        """Means over networks, a row for each width, and the rates below."""
        lines = [f"{'width':>8}" + "".join(f"{t:>22}" for t in _TITLES.values())]
        lines[0] += f"{'converged':>12}"
        for i, width in enumerate(self.widths):
            means = "".join(f"{getattr(self, name)[i].mean():22.4f}" for name in _TITLES)
            done = f"{self.converged[i].sum()} of {self.converged[i].size}"
            lines.append(f"{width:8d}{means}{done:>12}")
        lines.append(f"{'rate':>8}" + "".join(f"{self.rate(name)!s:>22}" for name in _TITLES))
        return "\n".join(lines)


def fit_rate(widths: ArrayLike, values: ArrayLike) -> Rate:
    """Exponent a of the law values = c width^a, by least squares of the logarithms.

    Parameters
    ----------
    widths : array of shape [W]
        At least two widths.
    values : array of shape [W, M]
        M independent measurements at each width, positive.

    Returns
    -------
    Rate
        With the t interval of the regression; NaN where W M = 2 leaves nothing to judge it by.

    Raises
    ------
    ValueError
        If there are fewer than two widths.

    Examples
    --------
    >>> rate = fit_rate([10, 100, 1000], [[1.0, 1.1], [0.1, 0.11], [0.01, 0.011]])
    >>> round(rate.exponent, 3)
    -1.0
    """
    widths, values = np.asarray(widths, float), np.asarray(values, float)
    if len(np.unique(widths)) < 2:
        raise ValueError("A rate needs measurements at two widths at least.")
    x, y = np.broadcast_arrays(np.log(widths)[:, None], np.log(values))
    fit = stats.linregress(x.ravel(), y.ravel())
    freedom = x.size - 2
    reach = stats.t.ppf(0.975, freedom) * fit.stderr if freedom else np.nan
    return Rate(float(fit.slope), float(fit.slope - reach), float(fit.slope + reach))


@own_rules()
def measure_laziness(
    key: Array,
    architecture: BaseArchitecture | Callable[[int], BaseArchitecture],
    X: ArrayLike,
    y: ArrayLike,
    likelihood: Likelihood,
    *,
    reg: float,
    widths: Sequence[int],
    X_probe: ArrayLike,
    n_members: int = 3,
    tol: float = 1e-4,
    max_iter: int = 1000,
    progress: Progress | None = None,
) -> Laziness:
    """Train networks of several widths, and measure how far they move.

    The condition of the theory is not asked for. With reg = 0 and one-hot targets there is no end
    of training: tol = 0 goes on until `max_iter`, and more iterations show more movement.

    Parameters
    ----------
    key : Array
        PRNG key.
    architecture : architecture, or callable
        Has a `width`, or an `Architecture` whose module takes one as an argument; or
        ``architecture(width)`` gives the network of a width.
    X, y, likelihood, reg, tol, max_iter
        As in `train_ensemble`.
    widths : sequence of int
        Widths.
    X_probe : array of shape [m, d]
        Where kernels and outputs are compared; a dozen points will do.
    n_members : int
        Networks of each width.
    progress : callable, optional
        ``progress(done, total)`` is told networks measured.

    Returns
    -------
    Laziness

    Raises
    ------
    ValueError
        If the architecture has no width, nor a module that takes one.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from ntk_uq import MLP, Categorical
    >>> from ntk_uq.lazy import measure_laziness
    >>> X, y = jnp.array([[-1.0], [1.0]]), jnp.eye(2)
    >>> lazy = measure_laziness(
    ...     jax.random.key(0), MLP(depth=1, activation="erf"), X, y, Categorical(), reg=1.0,
    ...     widths=[32, 512], X_probe=X,
    ... )
    >>> bool(lazy.rate().exponent < 0)
    True
    """
    of_width = _of_width(architecture)
    X, X_probe = floating(X), floating(X_probe)
    rows = []
    for position, width in enumerate(widths):
        network = of_width(width)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # reported as `converged`
            trained = train_ensemble(
                key, network, X, y, likelihood, reg=reg, n_members=n_members, tol=tol,
                max_iter=max_iter, check_condition=False,
            )  # fmt: skip
        for i in range(n_members):
            moved = _movement(network, *trained.member(i), X_probe)
            rows.append((*map(float, moved), trained.n_iter[i], trained.converged[i]))
            if progress is not None:
                progress(position * n_members + i + 1, len(widths) * n_members)
    columns = [np.reshape(column, (len(widths), n_members)) for column in zip(*rows, strict=True)]
    return Laziness(np.asarray(widths), *columns)


@in_a_line
@dataclass(frozen=True, eq=False)
class Experiment:
    """Networks of a classification trained in three ways, of which only the first two have an end.

    Regularised; without regularisation on smoothed labels; and without either, where outputs and
    kernel run away.

    Attributes
    ----------
    key : Array
        PRNG key.
    architecture : MLP or other architecture
        Has a `width`, which is varied.
    X : array of shape [n, d]
        Training points.
    y : array of shape [n]
        Their labels.
    X_probe : array of shape [m, d]
        Where kernels and outputs are compared.
    reg : float
        Regularisation of the first way.
    label_smoothing : float
        Probability of a label that is spread over all classes, of the second.
    n_members : int
        Networks of each width.

    Examples
    --------
    >>> import jax, numpy as np
    >>> from ntk_uq import MLP
    >>> X = np.array([[-1.0], [1.0]])
    >>> experiment = Experiment(jax.random.key(0), MLP(depth=1, activation="erf"), X, [0, 1], X)
    >>> list(experiment.regimes)
    ['reg = 1', 'reg = 0, labels smoothed by 0.1', 'reg = 0, one-hot labels']
    >>> lazy = experiment.measure("reg = 1", [32, 512])
    >>> bool(lazy.rate().exponent < 0)
    True
    """

    key: Array
    architecture: BaseArchitecture
    X: ArrayLike
    y: ArrayLike
    X_probe: ArrayLike
    reg: float = 1.0
    label_smoothing: float = 0.1
    n_members: int = 3

    @property
    def regimes(self) -> dict[str, tuple[Floats, float]]:
        """Targets [n, C] and regularisation of each way, by what it is called."""
        classes, labels = np.unique(self.y, return_inverse=True)
        one_hot = np.eye(len(classes))[labels]
        smoothing = self.label_smoothing
        smoothed = (1 - smoothing) * one_hot + smoothing / len(classes)
        return {
            f"reg = {self.reg:g}": (one_hot, self.reg),
            f"reg = 0, labels smoothed by {smoothing:g}": (smoothed, 0.0),
            "reg = 0, one-hot labels": (one_hot, 0.0),
        }

    def measure(self, regime: str, widths: Sequence[int], **options: Any) -> Laziness:
        """How far networks move that are trained in one of the ways.

        Parameters
        ----------
        regime : str
            A key of `regimes`.
        widths : sequence of int
            Widths.
        **options
            `tol`, `max_iter` and `progress` of `measure_laziness`.

        Returns
        -------
        Laziness
        """
        targets, reg = self.regimes[regime]
        return measure_laziness(
            self.key,
            self.architecture,
            jnp.asarray(self.X, jnp.float32),
            jnp.asarray(targets, jnp.float32),
            Categorical(),
            reg=reg,
            widths=widths,
            X_probe=jnp.asarray(self.X_probe, jnp.float32),
            n_members=self.n_members,
            **options,
        )


def _of_width(architecture: Any) -> Callable[[int], BaseArchitecture]:
    """The network of a width."""
    if not isinstance(architecture, BaseArchitecture):
        if callable(architecture):
            return architecture
        raise ValueError(
            f"architecture takes an architecture, or a function of a width; got {architecture!r}."
        )
    if "width" in architecture.get_params():
        return lambda width: dataclasses.replace(cast(Any, architecture), width=width)
    raise ValueError(
        f"{type(architecture).__name__} has no width to vary. Give a function of the width: "
        "lambda width: Architecture(partial(Net, hidden=width)) for example."
    )


@own_rules()
def kernel_change(architecture: BaseArchitecture, before: Any, after: Any, X: ArrayLike) -> float:
    r"""How far the tangent kernel of a network has moved, relative to its norm.

    :math:`\|\Theta_t - \Theta_0\|_F / \|\Theta_0\|_F` of the empirical kernel at some points, its
    trace over the outputs. Training was lazy where it is far below 1: the theory holds there, and
    an ensemble is what its kernel says. Near 1 and above, the network has learnt other features.

    Parameters
    ----------
    architecture : architecture
        The network.
    before, after : pytree
        Its parameters before and after training, `initial` and `params` of
        ``ensemble_.member(i)`` for example.
    X : array of shape [m, d]
        Where kernels are compared; a dozen points will do.

    Returns
    -------
    float

    Examples
    --------
    >>> import numpy as np
    >>> from ntk_uq import MLP, EnsembleClassifier
    >>> from ntk_uq.lazy import kernel_change
    >>> X = np.array([[-1.0], [1.0]])
    >>> model = EnsembleClassifier(MLP(width=256), n_members=1).fit(X, [0, 1])
    >>> kernel_change(model.architecture_, *model.ensemble_.member(0), X) < 0.3
    True
    """
    X = floating(X)
    start, end = (empirical_ntk(architecture, p, X, trace=True) for p in (before, after))
    return float(jnp.linalg.norm(end - start) / jnp.linalg.norm(start))


def _movement(
    architecture: BaseArchitecture, initial: Any, params: Any, X: Array
) -> tuple[Array, Array, Array, Array]:
    """Kernel change, parameter distance, linearisation error, largest output of one network."""
    squares = jax.tree.map(lambda a, b: jnp.sum((a - b) ** 2), params, initial)
    distance = jnp.sqrt(jax.tree.reduce(jnp.add, squares))
    outputs = architecture.apply(params, X)
    linear = jax.jit(linearisation, static_argnums=0)(architecture, params, initial, X)
    change = jnp.asarray(kernel_change(architecture, initial, params, X))
    return change, distance, jnp.max(jnp.abs(outputs - linear)), jnp.max(jnp.abs(outputs))
