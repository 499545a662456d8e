r"""A trained network, linearised where it stands, given data: its posterior, or its mode.

With the prior :math:`\theta \sim N(\theta_p, I / reg)` and the Jacobian J at the trained
parameters, a draw of the posterior is that of `exact_predictor`, in the parameters: with
:math:`\tilde\theta \sim N(0, I)` and label noise :math:`\varepsilon \sim N(0, W)` it is

.. math::
    \theta = \theta_p + \tilde\theta / \sqrt{reg} + J(X)^\top \alpha, \qquad
    reg\,\alpha = \nabla \log p(y \mid f) - \varepsilon, \qquad
    f = f(X; \theta^*) + J(X)(\theta - \theta^*),

a function that is known everywhere. The tangent kernel J J^T couples the outputs, and no factor of
it is needed. docs/theory: "A trained network".
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Literal, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.linalg import cho_solve
from numpy.typing import NDArray

from ntk_uq._common.checkpoint import digest
from ntk_uq._common.deflation import CoupledDeflation, deflate_coupled
from ntk_uq._common.dual_steps import per_draw
from ntk_uq._common.leaves import as_numpy
from ntk_uq._common.machine import memory_limit
from ntk_uq._common.operators import Dense, Factor, Operator
from ntk_uq._common.progress import Progress, progress_bar
from ntk_uq._common.rules import own_rules
from ntk_uq._common.solver import DualSolution, large_directions, solve_dual
from ntk_uq._common.support import Support
from ntk_uq._common.tiles import SymmetricTiles, tiled_bytes
from ntk_uq._common.uncertainty import Uncertainty
from ntk_uq._common.warnings import warn_user
from ntk_uq.analytic.budget import _max_iter
from ntk_uq.analytic.exact import _solve_draws, _standard_normal
from ntk_uq.analytic.flow import check_time, follow_flow
from ntk_uq.analytic.solutions import check_solution
from ntk_uq.analytic.tangents import FittedLinearized, TangentDraws, TangentGaussian
from ntk_uq.likelihoods import Curvature, Likelihood
from ntk_uq.likelihoods.interface import in_single_precision
from ntk_uq.networks.linearized import Linearized, Tangent, TangentProducts
from ntk_uq.networks.problem import Problem
from ntk_uq.predictions.first_order import (
    CHECK_ITERATIONS,
    CHECK_TOLERANCE,
    CHECKED,
    compare_draws,
    is_exact,
    no_discrepancy,
)

__all__ = ["LinearizedEnsemble", "check_linearized"]

Floats = NDArray[np.float64]

# Kernels of up to so many rows are held in double precision whatever the memory: of 2**13 rows that
# is half a gigabyte.
_DOUBLE_ROWS = 2**13
# Nats that solutions may be off: a thousandth of a posterior standard deviation; in single
# precision half a hundredth, as rounding hides much of that. The mode is known to a millionth.
_TOLERANCE = {jnp.dtype("float64"): 5e-7, jnp.dtype("float32"): 1e-5}
_MODE_TOLERANCE = {jnp.dtype("float64"): 1e-12, jnp.dtype("float32"): 1e-5}
# With tiles, whose residuals are double.
_MODE_TOLERANCE_OF_TILES = 1e-6
# Directions that a deflation takes, at most a quarter of all: of 3,000 rows 512 take three times as
# long to find, and save no tenth of the products.
_DIRECTIONS = 128
# Share of the memory that a kernel may take: its factor, or work space, takes as much again.
_SHARE = 0.35


# Points whose outputs are looked at.
_LOOKED_AT = 100
_ONE_LOGIT = (
    " Of two classes with one logit z between them the logits are 0 and z: give a module that "
    "returns jnp.concatenate([jnp.zeros_like(z), z], axis=1), z of shape [n, 1]."
)


def _warn_of_probabilities(outputs: Floats, targets: Floats) -> None:
    """Warn where outputs for classes are probabilities, so that a softmax is applied twice."""
    simplex = [
        np.all(p >= 0) and np.allclose(np.sum(p, 1), 1, atol=1e-4) for p in (outputs, targets)
    ]
    if all(simplex) and outputs.shape[1] > 1:
        warn_user(
            "The network's outputs are probabilities, at least 0 and 1 in sum, and logits are "
            "needed: leave out its last softmax."
        )


def check_linearized(uncertainty: Uncertainty, reg: Any, time: Any = None) -> None:
    """Refuse what a trained network does not have.

    Parameters
    ----------
    uncertainty, reg, time
        As the estimators take them.

    Raises
    ------
    ValueError
        Says what to use instead.

    Examples
    --------
    >>> check_linearized("posterior", 0.3)
    >>> try:
    ...     check_linearized("posterior", 0)
    ... except ValueError as error:
    ...     print(str(error)[:32])
    A trained network needs reg > 0,
    """
    if uncertainty == "initialization":
        raise ValueError(
            'uncertainty="initialization" is the spread over random initialisations, and '
            'Linearized is of one network, which is given. Use "posterior", or "none" for its mode.'
        )
    if reg == 0 and time is None:
        raise ValueError(
            "A trained network needs reg > 0, the precision of the prior about its parameters, or "
            "a time at which its training on these data stops."
        )


@dataclass(frozen=True)
class LinearizedEnsemble:
    """A trained network's tangent given data.

    Attributes
    ----------
    uncertainty : {"posterior", "none"}
        The posterior, or its mode.
    method : {"exact", "gaussian"}
        Draws, or the Gaussian about the mode: the linearised Laplace approximation.
    n_draws : int
        Number of draws.
    time : float, optional
        Time of gradient flow at which training of the mode stops; None is its end.

    Examples
    --------
    >>> import numpy as np
    >>> from flax import nnx
    >>> from ntk_uq import Categorical, Linearized
    >>> from ntk_uq.networks import Problem
    >>> net, X = Linearized(nnx.Linear(1, 2, rngs=nnx.Rngs(0))), np.array([[-1.0], [1.0]])
    >>> problem = Problem(X, np.eye(2), Categorical(), 1.0, None, net)
    >>> LinearizedEnsemble(method="gaussian").fit(problem).latents(X).cov.shape
    (2, 2, 2)
    """

    uncertainty: Uncertainty = "posterior"
    method: Literal["exact", "gaussian"] = "exact"
    n_draws: int = 256
    time: float | None = None

    def fit(self, problem: Problem, *, progress: bool | None = False) -> FittedLinearized:
        """Solve the problem.

        Parameters
        ----------
        problem : Problem
            Data, likelihood, regularisation and a `Linearized` network.
        progress : bool or None
            Progress bars; None shows them at a terminal only.

        Returns
        -------
        FittedLinearized

        Raises
        ------
        ValueError
            If the network's outputs are not those of the targets, or the problem cannot be solved.
        MemoryError
            If method="gaussian" needs more than there is.

        Warns
        -----
        ConvergenceWarning
            If a solution is a rough one.
        """
        check_linearized(self.uncertainty, problem.reg, self.time)
        check_time(self.time, self.uncertainty)
        net: Any = problem.architecture
        n, outputs = problem.targets.shape
        with own_rules(), jax.enable_x64(True):
            found = net.tangent.n_outputs(problem.points)
            if found != outputs:
                raise ValueError(
                    f"The network has {found} outputs, and the targets {outputs}: for classes "
                    "every label must be in y, in the order of the network's outputs."
                    + _ONE_LOGIT
                    * (found == 1 and outputs == 2)
                )
            _warn_of_probabilities(net.tangent.at(problem.points[:_LOOKED_AT]), problem.targets)
            factorised = self.method == "gaussian" and self.uncertainty != "none"
            as_matrix = factorised or self.time is not None
            with progress_bar("tangent kernel", n, progress) as told:
                tangent, theta = _kernel(net.tangent, problem.points, outputs, as_matrix, told)
            tangent_problem = _TangentProblem(tangent, net, problem, theta)
            if self.uncertainty == "none" or self.method == "gaussian":
                predictor: Any = self._about_mode(tangent_problem)
            else:
                with progress_bar("posterior draws", self.n_draws, progress) as told:
                    predictor = self._draws(tangent_problem, told)
        predictor = as_numpy(predictor)
        check_solution(predictor, problem.reg)
        points = problem.points if predictor_needs_points(predictor) else problem.points[:0]
        return FittedLinearized(predictor, points, net, problem.likelihood)

    def _about_mode(self, p: "_TangentProblem") -> TangentGaussian:
        alpha, latents, gap = p.mode() if self.time is None else p.until(self.time)
        moved = p.centre + p.tangent.pull(p.points, alpha[None])[0]
        mode = TangentGaussian(moved, None, None, "parameters", p.reg, gap)
        if self.uncertainty == "none":
            return replace(mode, discrepancy=no_discrepancy(p.targets.shape))
        return p.gaussian(mode, alpha, latents)

    def _draws(self, p: "_TangentProblem", told: Progress | None) -> TangentDraws:
        if p.problem.key is None:
            raise ValueError('method="exact" draws: give the problem a key.')
        key = jax.random.fold_in(p.problem.key, 0)
        mode, latents, _ = p.mode()
        parameters, f0, noise, start = p.random_problems(key, self.n_draws, mode, latents)
        tol = _TOLERANCE[p.dtype]
        deflation = p.deflation_of_draws(latents, f0)
        solve = p.solver(_max_iter(*p.targets.shape), tol, deflation)
        of_draws = {"linear": noise, "start": start}
        task = f"draws of {digest((jax.random.key_data(key), p.targets))}"
        tiled = isinstance(p.theta, SymmetricTiles)
        alpha, gap, converged = _solve_draws(
            solve, f0, of_draws, told, task, by_tiles=tiled, tol=tol
        )
        moved = parameters + p.tangent.pull(p.points, np.asarray(alpha))
        return TangentDraws(moved, p.reg, gap, converged)


def predictor_needs_points(predictor: Any) -> bool:
    """Whether predictions take kernels with the training points."""
    return isinstance(predictor, TangentGaussian) and predictor.roots is not None


def _precision(tangent: Tangent, rows: int) -> Any:
    """Double where a matrix of all rows, or all parameters, fits in it; else the network's.

    A trained network's prior is apt to be so wide that single precision solves nothing: of 100
    images of 10 classes, at reg 0.3, it leaves draws of size 600 a nat or two from their optimum.
    """
    smaller = min(rows, tangent.size)
    fits = smaller <= _DOUBLE_ROWS or 8 * smaller**2 < _SHARE * memory_limit()
    return jnp.dtype("float64") if fits else tangent.dtype


def _kernel(
    tangent: Tangent, X: Floats, outputs: int, as_matrix: bool, told: Progress | None
) -> tuple[Tangent, Operator | SymmetricTiles]:
    """Theta in the smallest form that fits, and the tangent in its precision."""
    rows, most = len(X) * outputs, _SHARE * memory_limit()
    narrow = 2 * tangent.size < rows
    if rows > _DOUBLE_ROWS and not (narrow or as_matrix) and tiled_bytes(rows) < most:
        single = tangent.cast(jnp.float32)
        return single, _tiles(single, X, outputs, told)
    tangent = tangent.cast(_precision(tangent, rows))
    size = jnp.dtype(tangent.dtype).itemsize
    if narrow and rows * tangent.size * size < most:
        return tangent, Factor(jnp.asarray(tangent.jacobian(X)))
    if rows**2 * size < most:
        return tangent, Dense(jnp.asarray(tangent.kernel(X, progress=told)))
    return tangent, TangentProducts.of(tangent, X)


def _tiles(tangent: Tangent, X: Floats, outputs: int, told: Progress | None) -> SymmetricTiles:
    tiles = SymmetricTiles(len(X) * outputs)
    for i, j, block in tangent.kernel_blocks(X, progress=told):
        matrix = block.reshape(block.shape[0] * outputs, -1)
        tiles.put(i * outputs, j * outputs, matrix)
    return tiles


@dataclass(frozen=True, eq=False)
class _TangentProblem:
    """A problem of a linearised network, with its kernel, in one precision."""

    tangent: Tangent
    net: Linearized
    problem: Problem
    theta: Operator | SymmetricTiles

    @property
    def reg(self) -> float:
        return self.problem.reg

    @property
    def points(self) -> Floats:
        return self.problem.points

    @property
    def targets(self) -> Array:
        return jnp.asarray(self.problem.targets, self.dtype)

    @property
    def dtype(self) -> Any:
        """Precision of the solutions; with tiles they are judged in double precision."""
        return jnp.dtype(self.tangent.dtype)

    @property
    def loss(self) -> Likelihood:
        """The likelihood in this precision."""
        if self.dtype == jnp.float32:
            return in_single_precision(self.problem.loss)
        return self.problem.loss

    @property
    def centre(self) -> NDArray:
        """Where the prior has its mean, from where the parameters are: [P]."""
        vector = self.tangent.vector
        return -vector if self.net.prior_mean == "zero" else np.zeros_like(vector)

    @cached_property
    def outputs(self) -> Array:
        """The network's own at the training points, [n, C]."""
        return jnp.asarray(self.tangent.at(self.points))

    @cached_property
    def prior_mean(self) -> Array:
        """The prior's mean at the training points, [n, C]."""
        if not self.centre.any():
            return self.outputs
        return self.outputs + self.tangent.push(self.points, self.centre[None])[0]

    def solver(self, max_iter: int, tol: float, deflation: Any = None) -> Callable[..., Any]:
        problem = self.theta, self.reg, self.targets, self.loss, deflation
        return partial(_solve, *problem, tol, max_iter)

    def mode(self) -> tuple[NDArray, Array, Array]:
        """Dual coefficients, latents and gap of the solution without a random prior function."""
        deflation = self.deflation(self.outputs)
        tiled = isinstance(self.theta, SymmetricTiles)
        tol = _MODE_TOLERANCE_OF_TILES if tiled else _MODE_TOLERANCE[self.dtype]
        solve = self.solver(_max_iter(*self.targets.shape), tol, deflation)
        solution = solve(self.prior_mean[None])
        return np.asarray(solution.alpha[0]), solution.latents[0], solution.gap[0]

    def until(self, time: float) -> tuple[NDArray, Array, Array]:
        """The same where gradient flow has come by a time; there is no gap to speak of."""
        start = self.prior_mean[None]
        theta = cast(Operator, self.theta)  # tiles are not followed
        flow = follow_flow(theta, self.targets, start, self.reg, self.problem.loss, [time])
        alpha, latents = next(flow)
        return np.asarray(alpha[0]), latents[0], jnp.zeros((), latents.dtype)

    def deflation(self, latents: Array) -> CoupledDeflation:
        """Of the problem and its draws, by a share of the curvature at these latents."""
        curvature = self.loss.curvature(latents, self.targets)
        return deflate_coupled(self._directions, self.reg, curvature)

    def deflation_of_draws(self, latents: Array, f0: Array) -> CoupledDeflation | Support:
        """Of draws: of a wide prior each is curved at few points, and not where the mode is."""
        if isinstance(self.theta, SymmetricTiles):
            begin = jnp.moveaxis(latents + f0 - self.prior_mean, 0, -1).astype(float)
            curvature = per_draw(self.loss.curvature)(begin, self.targets)
            # Latents that say nothing are curved everywhere.
            support = Support(self.theta, self.reg, self.deflation(jnp.zeros_like(latents)))
            if support.pays(curvature):
                return support
        return self.deflation(latents)

    @cached_property
    def _directions(self) -> tuple[Array, Array]:
        most = max(1, min(_DIRECTIONS, self.targets.size // 4))
        return large_directions(self.theta, self.targets, most=most)

    def random_problems(
        self, key: Array, draws: int, alpha: NDArray, latents: Array
    ) -> tuple[NDArray, Array, Array, Array]:
        """Parameters' prior draws [S, P], prior functions, label noise and starts [S, n, C]."""
        shapes = (self.tangent.size,), self.targets.shape
        # The same draws in every precision.
        normal, z = (
            np.asarray(numbers, self.dtype)
            for numbers in _standard_normal(key, range(draws), *shapes, dtype=np.float64)
        )
        parameters = self.centre + np.asarray(normal) / np.sqrt(self.reg).astype(normal.dtype)
        f0 = self.outputs + self.tangent.push(self.points, parameters)
        curvature = self.loss.curvature(latents, self.targets)
        start = jnp.broadcast_to(jnp.asarray(alpha), f0.shape)
        if isinstance(self.theta, SymmetricTiles):
            # A wide prior's f0 is far from the mode: start where large directions take it there.
            v, _ = self._directions
            along = (jnp.asarray(f0) - self.prior_mean).reshape(draws, -1) @ v
            start = start - (along @ v.T).reshape(f0.shape)
        return parameters, jnp.asarray(f0), curvature.sqrt_matvec(jnp.asarray(z)), start

    def gaussian(self, mode: TangentGaussian, alpha: NDArray, latents: Array) -> TangentGaussian:
        """The Gaussian about the mode, in the parameters or the outputs, whichever are fewer."""
        if isinstance(self.theta, TangentProducts):
            n, outputs = self.targets.shape
            raise MemoryError(
                f'method="gaussian" factorises a matrix of {n} points x {outputs} outputs, or of '
                f"{self.tangent.size} parameters, and neither fits this machine. Use "
                'method="exact", parameters of fewer layers, or a part of the points.'
            )
        roots = curvature_roots(self.problem.loss.curvature(latents, self.targets))
        if isinstance(self.theta, Factor):
            factor = _parameter_factor(self.theta.jacobian, roots, self.reg)
            predictor = replace(mode, factor=factor)
        else:
            factor = _output_factor(cast(Dense, self.theta).matrix, roots, self.reg)
            predictor = replace(mode, factor=factor, roots=roots, space="outputs")
        likelihood = self.problem.loss
        if is_exact(likelihood):
            return replace(predictor, discrepancy=no_discrepancy(self.targets.shape))
        draws = self._coupled_draws(predictor, roots, jnp.asarray(alpha), latents)
        return replace(predictor, discrepancy=compare_draws(*draws, likelihood))

    def _coupled_draws(
        self, predictor: TangentGaussian, roots: Array, alpha: Array, latents: Array
    ) -> tuple[Array, Array]:
        r"""The same draws at the training points, to first order and exactly: [S, n, C] each.

        To first order :math:`\alpha = \bar\alpha - R (reg\,I + R^\top \Theta R)^{-1}
        (R^\top g + z)`, with the prior function g about its mean, and R z the label noise.
        """
        key = jax.random.key(0, impl="threefry2x32")  # the same in every run
        parameters, z = _standard_normal(
            key, range(CHECKED), (self.tangent.size,), latents.shape, dtype=self.tangent.dtype
        )
        g = self.tangent.push(self.points, np.asarray(parameters)) / np.sqrt(self.reg)
        pulled = jnp.einsum("ndc,snd->snc", roots, jnp.asarray(g, latents.dtype)) + z
        moved = jnp.einsum("ncd,snd->snc", roots, self._dual_solve(predictor, roots, pulled))
        theta = cast(Operator, self.theta)  # a factor has been found
        change = jnp.moveaxis(theta.product(jnp.moveaxis(moved, 0, -1)), -1, 0)
        first_order = latents + g - change
        f0 = self.prior_mean + g
        noise = jnp.einsum("ncd,snd->snc", roots, z)
        solve = self.solver(CHECK_ITERATIONS, CHECK_TOLERANCE, self.deflation(latents))
        exact = solve(jnp.asarray(f0), linear=noise, start=alpha - moved)
        return first_order, exact.latents

    def _dual_solve(self, predictor: TangentGaussian, roots: Array, v: Array) -> Array:
        """(reg I + R^T Theta R)^-1 v, of S vectors [S, n, C]."""
        flat = v.reshape(len(v), -1).T
        factor = jnp.asarray(predictor.factor)
        if predictor.space == "outputs":
            solved = cho_solve((factor, True), flat)
        else:  # Woodbury's identity, with R^T J of fewer columns
            jacobian = cast(Factor, self.theta).jacobian
            scaled = jnp.einsum("ndc,ndp->ncp", roots, jacobian).reshape(len(flat), -1)
            solved = (flat - scaled @ cho_solve((factor, True), scaled.T @ flat)) / self.reg
        return solved.T.reshape(v.shape)


def _solve(
    theta: Any,
    reg: Array | float,
    y: Array,
    likelihood: Likelihood,
    deflation: Any,
    tol: float,
    max_iter: int,
    f0: Array,
    linear: Array | float = 0.0,
    start: Array | None = None,
    told: Callable[[Array], None] | None = None,
) -> DualSolution:
    return solve_dual(
        theta, reg, y, f0, likelihood, linear=linear, start=start, deflation=deflation, tol=tol,
        max_iter=max_iter, told=told,
    )  # fmt: skip


def curvature_roots(curvature: Curvature) -> Array:
    """R with R R^T = W at each point: [n, C, C]."""
    n, outputs = curvature.diagonal.shape
    unit = jnp.eye(outputs, dtype=curvature.diagonal.dtype)
    columns = [curvature.sqrt_matvec(jnp.broadcast_to(e, (n, outputs))) for e in unit]
    return jnp.stack(columns, axis=-1)


@jax.jit
def _output_factor(kernel: Array, roots: Array, reg: Any) -> Array:
    """L with L L^T = reg I + R^T Theta R: [nC, nC]."""
    inner = jnp.einsum("icd,icje->idje", roots, kernel)
    inner = jnp.einsum("idje,jef->idjf", inner, roots).reshape(roots.shape[0] * roots.shape[1], -1)
    return jnp.linalg.cholesky(inner + reg * jnp.eye(len(inner), dtype=inner.dtype))


@jax.jit
def _parameter_factor(jacobian: Array, roots: Array, reg: Any) -> Array:
    """L with L L^T = reg I + J^T W J: [P, P]."""
    scaled = jnp.einsum("ndc,ndp->ncp", roots, jacobian).reshape(-1, jacobian.shape[-1])
    inner = scaled.T @ scaled
    return jnp.linalg.cholesky(inner + reg * jnp.eye(len(inner), dtype=inner.dtype))
