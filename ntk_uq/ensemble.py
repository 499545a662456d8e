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

import hashlib
import os
import re
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax
from jax.scipy.linalg import cho_solve
from jax.sharding import AxisType, Mesh
from jax.sharding import PartitionSpec as P
from numpy.typing import ArrayLike, NDArray

from ntk_uq import _checks
from ntk_uq._checkpoint import Checkpoint
from ntk_uq._linalg import interpolation_factor
from ntk_uq._machine import free_memory
from ntk_uq._members import (
    Uncertainty,
    batch_key,
    check_problem,
    draw,
    floating,
    in_features,
    label_noise,
    prior_function,
)
from ntk_uq._progress import Progress
from ntk_uq._rules import own_rules
from ntk_uq._solver import DualSolution, solve_dual
from ntk_uq._training import (
    STUCK,
    ConjugateGradients,
    Member,
    Method,
    Optax,
    Problem,
    certificate,
    is_stuck,
    leaves_jacobian_span,
    norm,
    objective,
    scale_of,
    update_rule,
    vdot,
)
from ntk_uq.architectures import BaseArchitecture
from ntk_uq.kernels import empirical_ntk
from ntk_uq.likelihoods import Likelihood, require_condition

__all__ = [
    "ConvergenceWarning",
    "PathWarning",
    "TrainedEnsemble",
    "Uncertainty",
    "solve_linearised",
    "train_ensemble",
]

_MEMBERS = "members"  # the axis over which devices share the work

# Tolerance of the criterion, relative to the objective.
_TOL = 1e-4
# Iterations between two looks from outside: at progress, interrupts, and whether all are done.
_BLOCK = 5
# Seconds between two checkpoints of members in training; finished ones are saved at once.
_CHECKPOINT_SECONDS = 60.0
# Members that a device trains together where memory allows: enough to hide the cost of starting
# an operation on small networks, and few enough that one slow member keeps few others waiting.
_AT_ONCE = 8
# On a CPU, parameters and state of these members should stay in its cache, in bytes: a network of
# width 512 trains 1.2 times faster alone than beside seven others.
_CACHE_BYTES = 2**23
# On an accelerator, enough members to occupy it.
_AT_ONCE_ACCELERATED = 64
# Share of the free memory that a chunk of members takes by default.
_MEMORY_SHARE = 0.5
# Points that a member is evaluated at together.
_ROWS = 512
# Shifted networks whose mean is the posterior mode that label noise is drawn at: out of the way of
# the members, which count from 0.
_MODE_MEMBERS = range(2**31 - 4, 2**31)


class ConvergenceWarning(UserWarning):
    """Some members of an ensemble stopped before the criterion was met, or short of a minimum."""


class PathWarning(UserWarning):
    """Without regularisation, an optimizer ends elsewhere than gradient flow."""


@dataclass(frozen=True)
class TrainedEnsemble:
    """Trained members, and how well each was trained.

    Attributes
    ----------
    architecture : BaseArchitecture
        Evaluates the members.
    params : pytree
        Parameters with a leading axis of M members.
    n_iter : array of shape [M]
        Iterations taken.
    converged : array of shape [M]
        Whether the criterion of `train_ensemble` was met.
    objective : array of shape [M]
        Objective reached, in nats.
    grad_norm : array of shape [M]
        Euclidean norm of the gradient there. Networks with kinks (relu) keep a floor.
    key : Array
        PRNG key that members' initialisations and prior functions are drawn again from.
    in_features, out_features : int
        Features of a point (for images a shape), and outputs.
    reg : float
        Regularisation.
    uncertainty : str
        Whose spread the members show.
    mode : array of shape [n, C] or None
        The posterior mode at the training points, where label noise was drawn.
    linearised : bool
        Whether members are networks linearised at their initial parameters.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from ntk_uq import MLP, Categorical
    >>> from ntk_uq.ensemble import train_ensemble
    >>> X, y = jnp.array([[-1.0], [1.0]]), jnp.eye(2)
    >>> net = MLP(width=64, depth=1)
    >>> trained = train_ensemble(jax.random.key(0), net, X, y, Categorical(), reg=1.0, n_members=3)
    >>> start, end = trained.member(0)  # the network itself, before and after
    >>> bool(jnp.allclose(end(X), trained.latents(X)[0], atol=1e-5))
    True
    """

    architecture: BaseArchitecture
    params: Any
    n_iter: NDArray[np.integer]
    converged: NDArray[np.bool_]
    objective: NDArray[np.floating]
    grad_norm: NDArray[np.floating]
    key: Array
    in_features: int | tuple[int, ...]
    out_features: int
    reg: float
    uncertainty: Uncertainty
    mode: NDArray[np.floating] | None = None
    linearised: bool = False

    def __len__(self) -> int:
        return len(self.n_iter)

    @own_rules()
    def latents(self, X: ArrayLike) -> Array:
        """Outputs (logits) of every member at m points, in the precision of X: [M, m, C]."""
        X = floating(X)
        return jnp.stack([self._member_latents(i, X) for i in range(len(self))])

    @own_rules()
    def member(self, i: int) -> tuple[Any, Any]:
        """Initial and trained parameters of one member."""
        params = jax.tree.map(lambda leaf: leaf[i], self.params)
        return self._drawn_again(i, params)[0], params

    def _member_latents(self, i: int, X: Array) -> Array:
        params = jax.tree.map(lambda leaf: leaf[i], self.params)
        plain = self.uncertainty == "initialization" and not self.linearised
        initial, tangent = (None, None) if plain else self._drawn_again(i, params)
        return _latents(
            self.architecture, self.uncertainty, self.linearised, params, initial, tangent,
            self.reg, X,
        )  # fmt: skip

    def _drawn_again(self, i: int, params: Any) -> tuple[Any, Any]:
        """Initial parameters and prior tangent, in the precision that they were trained in."""
        double = any(leaf.dtype == np.float64 for leaf in jax.tree.leaves(params))
        with jax.enable_x64(double):
            return draw(self.architecture, self.key, i, self.in_features, self.out_features)


@own_rules()
def train_ensemble(
    key: Array,
    architecture: BaseArchitecture,
    X: ArrayLike,
    y: ArrayLike,
    likelihood: Likelihood,
    *,
    reg: float,
    n_members: int,
    uncertainty: Uncertainty = "initialization",
    tol: float = _TOL,
    max_iter: int = 1000,
    optimizer: optax.GradientTransformation | None = None,
    batch_size: int | None = None,
    check_condition: bool = True,
    memory: int | None = None,
    devices: Sequence[jax.Device] | None = None,
    warm_start: TrainedEnsemble | None = None,
    checkpoint: str | os.PathLike | None = None,
    progress: Progress | None = None,
) -> TrainedEnsemble:
    r"""Train an ensemble of networks to convergence.

    Nonlinear conjugate gradients (Hestenes-Stiefel) on the whole data. A line search needs one more
    forward pass: it gives the change of the outputs along the direction, and the convex problem
    of the step length is then solved exactly in the outputs. Every update is in the span of the
    gradients, so that reg = 0 ends where gradient flow does as the width grows.

    A member is done when the first of these holds; tol is relative to the objective (and is
    never asked of less than 1 nat):

    - :math:`\|\nabla L\|^2 / (2\,reg)` is below tol. On a reg-strongly convex objective, as the
      linearised network's, this bounds the distance to the minimum.
    - Five iterations have gained less than tol. A relu network's gradient jumps at its kinks and
      never becomes small, so this is the criterion that ends its training. A member that is stuck
      gains nothing either: it counts as converged only if a Newton step on the linearised objective
      predicts a decrease of less than 5% (or tol, where that is more).

    With reg = 0 the scale is not the objective, which the entropy of soft targets dominates,
    but 1 nat: the excess over the least possible loss, or the gain, is below tol nats.

    A network is not convex, and no criterion promises its minimum: docs/theory, "Training finite
    networks", says how far above the best that any method found this one ends.

    Parameters
    ----------
    key : Array
        PRNG key. Member i depends on ``fold_in(key, i)`` alone: a larger ensemble keeps its earlier
        members, bit for bit on the same devices.
    architecture : BaseArchitecture
        Gives ``init`` and ``apply``.
    X : Array of shape [n, d], or images [n, h, w, c]
        Training points.
    y : Array of shape [n, C]
        Targets as the likelihood takes them.
    likelihood : Likelihood
        Observation model; `Weighted` gives points weights.
    reg : float
        Regularisation, >= 0. Zero needs targets that are not degenerate.
    n_members : int
        Number of members M.
    uncertainty : {"initialization", "posterior", "none"}
        Whose spread the members show: see the module.
    tol : float
        Tolerance of the criterion.
    max_iter : int
        At most this many iterations.
    optimizer : optax.GradientTransformation, optional
        Takes the place of conjugate gradients, learning rate included. An iteration is then a
        pass over the data, and a member is done when fifty have gained less than tol; what Newton's
        step may predict is the same.
    batch_size : int, optional
        Points in a mini-batch of `optimizer`; None takes all. With mini-batches training takes
        `max_iter` passes, the length of a learning-rate schedule, and is judged at its end: their
        noise hides earlier whether it still gains.
    check_condition : bool
        False trains also where the theory says that there is no solution (reg = 0 and degenerate
        targets), until max_iter.
    memory : int, optional
        Bytes that training may take on each device. None takes half of what is free.
    devices : sequence of jax.Device, optional
        Members are spread over these; None takes all that JAX sees.
    warm_start : TrainedEnsemble, optional
        An ensemble trained with the same arguments and fewer members, which are kept.
    checkpoint : path, optional
        Directory of this run's results so far. A run that was killed goes on from there, to the
        same result.
    progress : callable, optional
        ``progress(done, total, gap=gap)`` is told members done, and what is the largest relative
        gap among those in training: it ends below tol.

    Returns
    -------
    TrainedEnsemble

    Raises
    ------
    ValueError
        If shapes do not fit, targets are none of the likelihood's, the condition of the theory
        fails, memory does not hold one member, or the checkpoint is damaged or of another run.

    Warns
    -----
    ConvergenceWarning
        Names members that reached `max_iter`, and those that stopped short of a minimum.
    PathWarning
        If reg = 0 and `optimizer` leaves the span of the gradients, as Adam does: its end point is
        then not the one that the theory describes.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from ntk_uq import MLP, Categorical
    >>> from ntk_uq.ensemble import train_ensemble
    >>> X, y = jnp.array([[-1.0], [1.0]]), jnp.eye(2)
    >>> net = MLP(width=64, depth=1)
    >>> trained = train_ensemble(jax.random.key(0), net, X, y, Categorical(), reg=1.0, n_members=3)
    >>> trained.latents(X).shape
    (3, 2, 2)
    """
    _checks.count("n_members", n_members)
    X, y = check_problem(architecture, X, y, likelihood, reg, uncertainty)
    if check_condition:
        require_condition(likelihood, y, reg)
    method = _method(optimizer, batch_size, reg, len(X), max_iter)
    if warm_start is not None:
        _check_warm_start(warm_start, key, architecture, reg, uncertainty)
    data = _Data(X, y, likelihood, jnp.asarray(reg, X.dtype), jnp.asarray(tol, X.dtype))
    trainer = _Trainer(
        architecture, method, key, data, max_iter,
        *_layout(architecture, method, data, memory, devices),
    )  # fmt: skip
    run = None if checkpoint is None else trainer.checkpoint(checkpoint, uncertainty)

    mode = None
    if uncertainty == "posterior":
        if warm_start is None:
            shifted = trainer.train(_MODE_MEMBERS, "none", None, run, "mode")
            what = "shifted networks, whose mean is the mode that label noise is drawn at,"
            _warn_unconverged(what, shifted, max_iter, optimizer)
            mode = np.mean(shifted.latents, axis=0)
        else:
            mode = warm_start.mode
    kept = 0 if warm_start is None else min(len(warm_start), n_members)
    results = trainer.train(range(kept, n_members), uncertainty, mode, run, "member", progress)
    if warm_start is not None:
        earlier = _Results(
            warm_start.params, warm_start.n_iter, warm_start.converged, warm_start.objective,
            warm_start.grad_norm, results.latents[:0],
        )  # fmt: skip
        results = jax.tree.map(
            lambda a, b: np.concatenate([a[:kept], b[: n_members - kept]]), earlier, results
        )
    trained = TrainedEnsemble(
        architecture=architecture,
        params=results.params,
        n_iter=results.n_iter,
        converged=results.converged,
        objective=results.objective.astype(np.float64),
        grad_norm=results.grad_norm.astype(np.float64),
        key=key,
        in_features=in_features(X),
        out_features=y.shape[1],
        reg=float(reg),
        uncertainty=uncertainty,
        mode=mode,
    )
    _warn_unconverged("members", trained, max_iter, optimizer)
    return trained


@own_rules()
def solve_linearised(
    key: Array,
    architecture: BaseArchitecture,
    X: ArrayLike,
    y: ArrayLike,
    likelihood: Likelihood,
    *,
    reg: float,
    n_members: int,
    uncertainty: Uncertainty = "initialization",
    progress: Progress | None = None,
) -> TrainedEnsemble:
    r"""Train the linearised networks of an ensemble, exactly.

    The network :math:`f_0 + J (\theta - \theta_0)` has a convex objective; its minimum is
    :math:`\theta_0 + J^\top \alpha` with n C dual coefficients, for which the empirical tangent
    kernel is all that is needed. The members are those of `train_ensemble` with the same key, so
    that each network can be compared with its linearisation.

    Parameters
    ----------
    key, architecture, X, y, likelihood, reg, n_members, uncertainty
        As in `train_ensemble`; n C is limited by the kernel's (n C)^2 numbers. Precision is that of
        X: use double precision for small reg, and for none.
    progress : callable, optional
        ``progress(done, total)`` is told members done.

    Returns
    -------
    TrainedEnsemble
        Linearised. ``n_iter`` counts products with the kernel.

    Raises
    ------
    ValueError
        If arguments do not fit together; or if reg = 0 and targets are degenerate, or the kernel
        is singular.

    References
    ----------
    docs/theory, "Linearised solution" and "Softmax without regularisation".

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from ntk_uq import MLP, Categorical
    >>> from ntk_uq.ensemble import solve_linearised
    >>> X, y = jnp.array([[-1.0], [1.0]]), jnp.eye(2)
    >>> net = MLP(width=64, depth=1)
    >>> solved = solve_linearised(jax.random.key(0), net, X, y, Categorical(), reg=1.0, n_members=2)
    >>> solved.latents(X).shape
    (2, 2, 2)
    """
    _checks.count("n_members", n_members)
    X, y = check_problem(architecture, X, y, likelihood, reg, uncertainty)
    require_condition(likelihood, y, reg)
    mode = None
    if uncertainty == "posterior":
        shifted = [
            _solve_member(architecture, "none", key, i, X, y, likelihood, reg, None)
            for i in _MODE_MEMBERS
        ]
        mode = np.mean([np.asarray(member.latents) for member in shifted], axis=0)
    members = []
    for i in range(n_members):
        solved = _solve_member(architecture, uncertainty, key, i, X, y, likelihood, reg, mode)
        members.append(jax.tree.map(np.asarray, solved))
        if progress is not None:
            progress(i + 1, n_members)
    results = jax.tree.map(lambda *leaves: np.stack(leaves), *members)
    unsolved = np.flatnonzero(~results.converged)
    if unsolved.size:
        warnings.warn(
            f"{len(unsolved)} of {n_members} linearised networks were not solved to within "
            f"{_TOL:g} of their objective: the problem is too ill-conditioned for {X.dtype}. Use "
            "double precision, scale the features (about 1 each), or raise reg.",
            ConvergenceWarning,
            stacklevel=2,
        )
    return TrainedEnsemble(
        architecture=architecture,
        params=results.params,
        n_iter=results.n_iter,
        converged=results.converged,
        objective=results.objective.astype(np.float64),
        grad_norm=results.grad_norm.astype(np.float64),
        key=key,
        in_features=in_features(X),
        out_features=y.shape[1],
        reg=float(reg),
        uncertainty=uncertainty,
        mode=mode,
        linearised=True,
    )


def _solve_member(architecture, uncertainty, key, i, X, y, likelihood, reg, mode) -> "_Results":
    """Exact solution of one linearised network."""
    initial, tangent = draw(architecture, key, i, in_features(X), y.shape[1])
    prior = architecture.apply(initial, X) + prior_function(
        architecture, uncertainty, initial, tangent, reg, X
    )
    noise = label_noise(uncertainty, key, i, likelihood, mode, y)
    tol = 1e-12 if X.dtype == jnp.float64 else 1e-6  # nats, what the precision allows
    ntk = empirical_ntk(architecture, initial, X)
    if reg > 0:
        solution = solve_dual(ntk, reg, y, prior[None], likelihood, linear=noise[None], tol=tol)
    else:
        solution = _interpolate(ntk, y, prior, likelihood)
    alpha, latents = solution.alpha[0], solution.latents[0]
    _, pull_back = jax.vjp(lambda params: architecture.apply(params, X), initial)
    (displacement,) = pull_back(alpha)
    loss = jnp.sum(noise * latents) - jnp.sum(likelihood.log_density(latents, y))
    value = loss + 0.5 * reg * vdot(displacement, displacement)
    (gradient,) = pull_back(noise - likelihood.gradient(latents, y) + reg * alpha)
    settings = jnp.asarray(reg, X.dtype), jnp.asarray(_TOL, X.dtype)
    problem = Problem(architecture.apply, X, y, likelihood, *settings)
    gap = certificate(problem, value, vdot(gradient, gradient)) / scale_of(problem, value)
    return _Results(
        params=jax.tree.map(jnp.add, initial, displacement),
        n_iter=solution.n_products,
        converged=gap < tol,
        objective=value,
        grad_norm=norm(gradient),
        latents=latents,
    )


def _interpolate(ntk, y, prior, likelihood) -> DualSolution:
    """End of gradient flow without regularisation: it moves what the likelihood sees, no more."""
    n, outputs = y.shape
    eye = jnp.eye(outputs, dtype=ntk.dtype)
    seen = likelihood.identified(eye)
    kernel = jnp.einsum("ab,ibjc,cd->iajd", seen, ntk, seen).reshape(n * outputs, -1)
    # Directions that are not seen need no move: any positive kernel there leaves them alone.
    unseen = jnp.kron(jnp.eye(n, dtype=ntk.dtype), eye - seen)
    factor = interpolation_factor(kernel + jnp.trace(kernel) / len(kernel) * unseen)
    gap = likelihood.optimum(y) - likelihood.identified(prior)
    alpha = cho_solve((factor, True), gap.ravel()).reshape(n, outputs)
    latents = prior + jnp.einsum("iajb,jb->ia", ntk, alpha)
    residual = jnp.max(jnp.abs(likelihood.gradient(latents, y)))[None]
    zero = jnp.zeros(1, ntk.dtype)
    return DualSolution(alpha[None], latents[None], zero, residual, zero == 0, jnp.asarray(1))


@own_rules()
def linearisation(architecture, params, initial, X) -> Array:
    """Outputs [n, C] of the network linearised at its initial parameters."""
    displacement = jax.tree.map(jnp.subtract, params, initial)
    f0, change = jax.jvp(lambda p: architecture.apply(p, X), (initial,), (displacement,))
    return f0 + change


class _Data(NamedTuple):
    """The arrays of a `Problem`."""

    X: Array
    y: Array
    likelihood: Likelihood
    reg: Array
    tol: Array


class _Results(NamedTuple):
    """What is kept of trained members; a leading axis of all leaves is the ensemble."""

    params: Any
    n_iter: Any
    converged: Any
    objective: Any
    grad_norm: Any
    latents: Any  # at the training points


@dataclass(frozen=True)
class _Trainer:
    """Trains any members, chunk by chunk.

    A chunk is always of the same shape, and a member always at the same place of it: programs for
    other shapes round differently, in the last bits of vectorised functions.
    """

    architecture: BaseArchitecture
    method: Method
    key: Array
    data: _Data
    max_iter: int
    mesh: Mesh
    chunk: int

    def train(
        self,
        members: range,
        uncertainty: Uncertainty,
        mode: NDArray | None,
        run: Checkpoint | None,
        name: str,
        progress: Progress | None = None,
    ) -> _Results:
        """Train consecutive members."""
        first = members.start // self.chunk * self.chunk
        chunks = []
        for start in range(first, max(members.stop, first + 1), self.chunk):
            wanted = range(max(start, members.start), min(start + self.chunk, members.stop))
            report = None
            if progress is not None:
                report = partial(_report, progress, wanted.start, members.stop)
            name_of_chunk = f"{name}-{wanted.start}-{wanted.stop}"
            results = self._train_chunk(
                start, wanted, uncertainty, mode, run, name_of_chunk, report
            )
            places = _within(wanted, start)
            chunks.append(jax.tree.map(lambda leaf, places=places: leaf[places], results))
        return jax.tree.map(lambda *parts: np.concatenate(parts), *chunks)

    def _train_chunk(self, start, wanted, uncertainty, mode, run, name, report) -> _Results:
        indices = jnp.arange(self.chunk, dtype=jnp.uint32) + jnp.uint32(start)
        settings = (self.architecture, self.method, self.mesh)
        members, state = _start(*settings, uncertainty, self.key, indices, self.data, mode)
        # Places of members that are not asked for are idle.
        idle = np.ones(self.chunk, bool)
        idle[_within(wanted, start)] = False
        state = state._replace(converged=state.converged | idle)
        results_like = jax.eval_shape(partial(_finish, *settings), members, state, self.data)
        if run is not None:
            results = run.load(name, results_like)
            if results is not None:
                return results
            saved_state = run.load(f"{name}-training", state)
            state = state if saved_state is None else saved_state
        saved = time.monotonic()
        while True:
            taken = int(jnp.max(state.n_iter))
            limit = min(taken + _BLOCK, self.max_iter)
            state = _advance(*settings, members, state, self.data, limit)
            converged = np.asarray(state.converged)  # waits for the block
            if report is not None:
                report(converged & ~idle, np.asarray(state.gap)[~idle & ~converged])
            if converged.all() or limit == self.max_iter:
                break
            if run is not None and time.monotonic() - saved > _CHECKPOINT_SECONDS:
                run.save(f"{name}-training", state)
                saved = time.monotonic()
        results = jax.tree.map(np.asarray, _finish(*settings, members, state, self.data))
        if run is not None:
            run.save(name, results)
            run.remove(f"{name}-training")
        return results

    def _optimizer(self) -> dict[str, str]:
        if not isinstance(self.method, Optax):
            return {}
        rule = _name(update_rule(self.method.optimizer))
        return {"optimizer": hashlib.sha256(rule.encode()).hexdigest()[:16]}

    def checkpoint(self, directory: str | os.PathLike, uncertainty: Uncertainty) -> Checkpoint:
        """Checkpoint for what this trains, labelled with all that its results depend on."""
        X, y, likelihood, reg, tol = self.data
        return Checkpoint(
            directory,
            {
                "architecture": _name(self.architecture),
                "method": _name(self.method),
                **self._optimizer(),
                "X": _digest(X),
                "y": _digest(y),
                "likelihood": f"{type(likelihood).__name__} {_digest(likelihood)}",
                "uncertainty": uncertainty,
                "reg": repr(float(reg)),
                "tol": repr(float(tol)),
                "max_iter": str(self.max_iter),
                "key": _digest(jax.random.key_data(self.key)),
                "members at once": str(self.chunk),
            },
        )


def _within(members: range, start: int) -> slice:
    """Places of members in the chunk that starts at `start`."""
    return slice(members.start - start, members.stop - start)


def _report(progress: Progress, first: int, total: int, done: NDArray, gaps: NDArray) -> None:
    progress(first + int(done.sum()), total, gap=float(gaps.max(initial=0.0)))


def _name(thing: Any) -> str:
    """Representation without addresses in memory."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(thing))


def _digest(arrays: Any) -> str:
    sha = hashlib.sha256()
    for leaf in jax.tree.leaves(arrays):
        sha.update(np.ascontiguousarray(leaf).tobytes())
    return sha.hexdigest()[:16]


# Programs. Each device runs its own part of a chunk, with its own loop.


def _on_each_device(mesh: Mesh, function, *args, everywhere: Any = ()):
    """function(*args, *everywhere) with the leading axis of `args` spread over the devices."""
    specs = (*[P(_MEMBERS)] * len(args), *[P()] * len(everywhere))
    return jax.shard_map(
        function, mesh=mesh, in_specs=specs, out_specs=P(_MEMBERS), check_vma=False
    )(*args, *everywhere)


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _start(architecture, method, mesh, uncertainty, key, indices, data: _Data, mode):
    """Members and the state in which they start."""
    X, y, likelihood, reg, _ = data

    def one(i, key, data, mode):
        initial, tangent = draw(architecture, key, i, in_features(X), y.shape[1])
        shift = prior_function(architecture, uncertainty, initial, tangent, reg, X)
        noise = label_noise(uncertainty, key, i, likelihood, mode, y)
        shift = jnp.broadcast_to(shift, y.shape)
        member = Member(initial, shift, noise, batch_key(key, i))
        return member, method.start(Problem(architecture.apply, *data), member)

    def device(indices, *everywhere):
        return jax.vmap(one, (0, None, None, None))(indices, *everywhere)

    return _on_each_device(mesh, device, indices, everywhere=(key, data, mode))


@partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=4)
def _advance(architecture, method, mesh, members, state, data: _Data, limit):
    """Iterate until `limit` iterations were taken or every member has converged."""

    def device(members, state, data, limit):
        step = jax.vmap(partial(method.step, Problem(architecture.apply, *data)))

        def unfinished(state):
            return jnp.any(~state.converged & (state.n_iter < limit))

        return lax.while_loop(unfinished, lambda state: step(members, state), state)

    return _on_each_device(mesh, device, members, state, everywhere=(data, limit))


@partial(jax.jit, static_argnums=(0, 1, 2))
def _finish(architecture, method, mesh, members, state, data: _Data) -> _Results:
    """What is kept of members that are done."""

    def one(member, state, data):
        problem = Problem(architecture.apply, *data)
        (value, latents), gradient = jax.value_and_grad(objective, 2, has_aux=True)(
            problem, member, state.params
        )
        converged = state.converged & ~is_stuck(problem, member, state.params)
        return _Results(state.params, state.n_iter, converged, value, norm(gradient), latents)

    def device(members, state, data):
        return jax.vmap(one, (0, 0, None))(members, state, data)

    return _on_each_device(mesh, device, members, state, everywhere=(data,))


@partial(jax.jit, static_argnums=(0, 1, 2))
def _latents(architecture, uncertainty, linearised, params, initial, tangent, reg, X):
    """Outputs [m, C] of one member, in the precision of X."""
    params, initial, tangent, reg = jax.tree.map(
        lambda leaf: jnp.asarray(leaf, X.dtype), (params, initial, tangent, reg)
    )

    def network(x):
        if linearised:
            return linearisation(architecture, params, initial, x)
        return architecture.apply(params, x)

    def one_point(x):
        prior = prior_function(architecture, uncertainty, initial, tangent, reg, x[None])
        return (network(x[None]) + prior)[0]

    return lax.map(one_point, X, batch_size=_ROWS)


# At the door.


def _method(optimizer, batch_size, reg, n, max_iter) -> Method:
    if optimizer is None:
        if batch_size is not None:
            raise ValueError(
                "batch_size needs an optimizer, optax.sgd(0.1, momentum=0.9) for example: "
                "conjugate gradients search along directions of the whole objective."
            )
        return ConjugateGradients()
    if batch_size is not None and not 1 <= batch_size <= n:
        raise ValueError(f"batch_size must be between 1 and the {n} points; got {batch_size}.")
    if reg == 0 and leaves_jacobian_span(optimizer):
        warnings.warn(
            "reg=0 and an optimizer whose updates leave the span of the gradients (as Adam's and "
            "weight decay's do): training ends at another of the many minima than gradient flow, "
            "and no kernel describes it. Leave optimizer out, use optax.sgd, or set reg > 0.",
            PathWarning,
            stacklevel=4,  # this, the door, its rules, the caller
        )
    return Optax(optimizer, batch_size, 0 if batch_size is None else max_iter)


def _check_warm_start(earlier: TrainedEnsemble, key, architecture, reg, uncertainty) -> None:
    same = {
        "key": bool(jnp.all(jax.random.key_data(earlier.key) == jax.random.key_data(key))),
        "architecture": earlier.architecture == architecture,
        "reg": earlier.reg == float(reg),
        "uncertainty": earlier.uncertainty == uncertainty,
    }
    different = [name for name, equal in same.items() if not equal]
    if different:
        raise ValueError(
            f"warm_start was trained with another {', '.join(different)}: only the number of "
            "members may change."
        )


def _warn_unconverged(what: str, results: Any, max_iter: int, optimizer: Any) -> None:
    """Tell of members that met no criterion, and of those that stand still where they must not."""
    late = ~results.converged & (results.n_iter >= max_iter)
    stuck = ~results.converged & ~late
    scale = "scale the features (about 1 each), or raise reg"
    if optimizer is None:
        cure = f"{scale[0].upper()}{scale[1:]}."
    else:
        cure = f"Change the optimizer's learning rate, or leave it out; {scale}."
    for which, how in (
        (
            late,
            f"did not converge in max_iter={max_iter} iterations: {{}}. Raise max_iter or tol; "
            f"{scale}.",
        ),
        (
            stuck,
            "stopped short of a minimum: {}. Their objective no longer falls, where its gradient "
            f"and curvature say that it could by more than {STUCK:.0%}. {cure}",
        ),
    ):
        named = np.flatnonzero(which)
        if named.size:
            names = f"{', '.join(map(str, named[:10]))}{', ...' if len(named) > 10 else ''}"
            warnings.warn(
                f"{len(named)} of {len(which)} {what} {how.format(names)}",
                ConvergenceWarning,
                stacklevel=4,  # this, the door, its rules, the caller
            )


def _layout(architecture, method, data: _Data, memory, devices) -> tuple[Mesh, int]:
    """Devices, and members that they train at once."""
    devices = jax.devices() if devices is None else list(devices)
    needed = _member_bytes(architecture, method, data)
    given = _free_bytes(devices) * _MEMORY_SHARE if memory is None else memory
    if given < needed:
        raise ValueError(
            f"Training one member takes about {needed / 2**20:.0f} MiB, and the memory to use is "
            f"{given / 2**20:.0f} MiB on each device. Give more memory, a smaller network, or an "
            "optimizer with a batch_size."
        )
    if devices[0].platform == "cpu":
        state = _bytes(_started(architecture, method, data))
        most = min(_AT_ONCE, max(1, _CACHE_BYTES // state))
    else:
        most = _AT_ONCE_ACCELERATED
    mesh = jax.make_mesh((len(devices),), (_MEMBERS,), (AxisType.Auto,), devices=devices)
    return mesh, len(devices) * int(min(most, given // needed))


def _free_bytes(devices: Sequence[jax.Device]) -> float:
    """Free memory of each device."""
    statistics = devices[0].memory_stats()
    if statistics and "bytes_limit" in statistics:
        return statistics["bytes_limit"] - statistics.get("bytes_in_use", 0)
    return free_memory() / len(devices)


def _member_bytes(architecture, method, data: _Data) -> int:
    """Memory that training one member takes: states, parameters on the way, activations."""

    def saved_for_gradient(params, X):
        return jax.vjp(lambda params: architecture.apply(params, X), params)[1]

    member, state = _started(architecture, method, data)
    rows = getattr(method, "batch_size", None) or len(data.X)
    activations = jax.eval_shape(saved_for_gradient, member.initial, data.X[:rows])
    # The old state and the new one; two sets of parameters between them; each saved activation
    # meets a cotangent of its size.
    return _bytes(member.initial) * 3 + 2 * _bytes(state) + 2 * _bytes(activations)


def _started(architecture, method, data: _Data) -> tuple[Member, Any]:
    """Shapes of a member and the state in which it starts."""

    def start(key):
        initial = architecture.init(key, in_features(data.X), data.y.shape[1])
        member = Member(initial, jnp.zeros_like(data.y), jnp.zeros_like(data.y), key)
        return member, method.start(Problem(architecture.apply, *data), member)

    return jax.eval_shape(start, jax.random.key(0))


def _bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
