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

import os
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from numpy.typing import ArrayLike

from ntk_uq._common import checks
from ntk_uq._common.checkpoint import check_directory, digest
from ntk_uq._common.progress import Progress
from ntk_uq._common.rules import own_rules
from ntk_uq._common.uncertainty import Uncertainty
from ntk_uq._common.warnings import ConvergenceWarning, warn_user
from ntk_uq.ensemble.conjugate_gradients import ConjugateGradients
from ntk_uq.ensemble.gradient_flow import GradientFlow
from ntk_uq.ensemble.layout import _layout
from ntk_uq.ensemble.members import check_problem, in_features
from ntk_uq.ensemble.objective import (
    STUCK,
    Method,
)
from ntk_uq.ensemble.optax_method import Optax, leaves_jacobian_span
from ntk_uq.ensemble.trained import PathWarning, TrainedEnsemble
from ntk_uq.ensemble.trainer import _Data, _Results, _Trainer
from ntk_uq.likelihoods import Likelihood, require_condition
from ntk_uq.networks.architecture import BaseArchitecture

__all__ = ["train_ensemble"]

# Tolerance of the criterion, relative to the objective.
_TOL = 1e-4
# Shifted networks whose mean is the posterior mode that label noise is drawn at: out of the way of
# the members, which count from 0.
_MODE_MEMBERS = range(2**31 - 4, 2**31)


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
    time: float | None = None,
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
      predicts a decrease of less than 20% (or tol, where that is more), label noise's term counted
      by its size.

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
    time : float, optional
        Stop at this time of gradient flow, learning rate times steps on the sum of losses: it is
        followed by a method of third order with control of its error, so that no learning rate
        plays a part. An iteration is a step, and the work grows with `time` times the largest
        eigenvalue of the objective's Hessian. Not for "posterior". Regularisation and soft targets
        are not needed. None trains to the end.
    check_condition : bool
        False trains also where the theory says that there is no solution (reg = 0 and degenerate
        targets), until max_iter.
    memory : int, optional
        Bytes that training may take on each device. None takes half of what is free.
    devices : sequence of jax.Device, optional
        Members are spread over these; None takes all that JAX sees.
    warm_start : TrainedEnsemble, optional
        An ensemble trained with the same data and arguments and fewer members, which are kept.
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
        Names members that reached `max_iter`, and those that stopped short of a minimum; of
        mini-batches those alone that diverged.
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
    checks.count("n_members", n_members)
    check_directory(checkpoint)
    X, y = check_problem(architecture, X, y, likelihood, reg, uncertainty)
    if check_condition and time is None:
        require_condition(likelihood, y, reg)
    method = _method(optimizer, batch_size, reg, len(X), max_iter, time)
    _check_time(time, uncertainty)
    identity = f"{type(likelihood).__name__} {digest((X, y, likelihood))} {time}"
    if warm_start is not None:
        _check_warm_start(warm_start, key, architecture, reg, uncertainty, identity)
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
            _warn_unconverged(what, shifted, max_iter, optimizer, batch_size)
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
        problem=identity,
    )
    _warn_unconverged("members", trained, max_iter, optimizer, batch_size)
    return trained


# At the door.


def _check_time(time: float | None, uncertainty: Uncertainty) -> None:
    if time is None:
        return
    checks.real("time", time, minimum=0.0)
    if uncertainty == "posterior":
        raise ValueError(
            'uncertainty="posterior" describes the end of training: a posterior has no time. Use '
            '"initialization" or "none", or time=None.'
        )


def _method(
    optimizer: Any, batch_size: int | None, reg: float, n: int, max_iter: int, time: float | None
) -> Method:
    if time is not None:
        if optimizer is not None or batch_size is not None:
            raise ValueError(
                "time is of gradient flow, which has no optimizer and no batches: leave optimizer "
                "and batch_size out, or time."
            )
        return GradientFlow(float(time))
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
        warn_user(
            "reg=0 and an optimizer whose updates leave the span of the gradients (as Adam's and "
            "weight decay's do): training ends at another of the many minima than gradient flow, "
            "and no kernel describes it. Leave optimizer out, use optax.sgd, or set reg > 0.",
            PathWarning,
        )
    return Optax(optimizer, batch_size, 0 if batch_size is None else max_iter)


def _check_warm_start(
    earlier: TrainedEnsemble,
    key: Array,
    architecture: BaseArchitecture,
    reg: float,
    uncertainty: Uncertainty,
    problem: str,
) -> None:
    same = {
        "key": bool(jnp.all(jax.random.key_data(earlier.key) == jax.random.key_data(key))),
        "architecture": earlier.architecture == architecture,
        "reg": earlier.reg == float(reg),
        "uncertainty": earlier.uncertainty == uncertainty,
        "linearisation": not earlier.linearised,
        "points, targets, weights, noise or time": earlier.problem in (None, problem),
    }
    different = [name for name, equal in same.items() if not equal]
    if uncertainty == "posterior" and earlier.mode is None:
        raise ValueError(
            "warm_start was saved with data=False, without the posterior mode at the training "
            "points at which label noise is drawn: fit all members anew, warm_start=False."
        )
    if different:
        raise ValueError(
            f"warm_start was trained with other {', '.join(different)}: only the number of "
            "members may change. To train on something else set warm_start=False."
        )


def _warn_unconverged(
    what: str, results: Any, max_iter: int, optimizer: Any, batch_size: int | None
) -> None:
    """Tell of members that met no criterion, and of those that stand still where they must not.

    In mini-batches training ends after `max_iter` passes, as it was asked to.
    """
    late = ~results.converged & (results.n_iter >= max_iter)
    stuck = ~results.converged & ~late
    if batch_size is not None:
        late &= ~np.isfinite(results.objective)
    scale = "scale the features (about 1 each), widen the network, or raise reg"
    if optimizer is None:
        cure = f"{scale[0].upper()}{scale[1:]}."
    else:
        cure = f"Change the optimizer's learning rate, or leave it out; {scale}."
    for which, how in (
        (
            late,
            f"did not converge in max_iter={max_iter} iterations: {{}}. Raise max_iter or tol; "
            f"{scale}."
            if batch_size is None
            else f"diverged: {{}}. Lower the optimizer's learning rate; {scale}.",
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
            warn_user(
                f"{len(named)} of {len(which)} {what} {how.format(names)}",
                ConvergenceWarning,
            )
