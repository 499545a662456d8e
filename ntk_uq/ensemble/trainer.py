"""Trains members chunk by chunk, spread over devices, with checkpoints between blocks."""

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from numpy.typing import NDArray

from ntk_uq._common.checkpoint import Checkpoint, digest, name_without_addresses, probes
from ntk_uq._common.processes import divided
from ntk_uq._common.progress import Progress
from ntk_uq._common.uncertainty import Uncertainty
from ntk_uq.ensemble.members import (
    batch_key,
    draw,
    in_features,
    label_noise,
    prior_function,
)
from ntk_uq.ensemble.objective import (
    Member,
    Method,
    NewtonStep,
    Problem,
    hessian,
    is_stuck,
    newton_product,
    newton_start,
    norm,
    objective,
)
from ntk_uq.ensemble.optax_method import Optax, update_rule
from ntk_uq.likelihoods import Likelihood
from ntk_uq.networks.architecture import BaseArchitecture

_MEMBERS = "members"  # the axis over which devices share the work
# Iterations between two looks from outside: at progress, interrupts, and whether all are done.
_BLOCK = 5
# Seconds between two checkpoints of members in training; finished ones are saved at once.
_CHECKPOINT_SECONDS = 60.0


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


class _Programs(NamedTuple):
    """What programs are compiled for."""

    architecture: BaseArchitecture
    method: Method
    mesh: Mesh


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

        def wanted_of(start: int) -> range:
            return range(max(start, members.start), min(start + self.chunk, members.stop))

        def train_chunks(starts: Sequence[int]) -> list[_Results]:
            chunks = []
            skipped = wanted_of(starts[0]).start - members.start if starts else 0
            for start in starts:
                wanted, report = wanted_of(start), None
                if progress is not None:
                    done, total = wanted.start - skipped, wanted_of(starts[-1]).stop - skipped
                    report = partial(_report, progress, done, total)
                name_of_chunk = f"{name}-{wanted.start}-{wanted.stop}"
                results = self._train_chunk(
                    start, wanted, uncertainty, mode, run, name_of_chunk, report
                )
                places = _within(wanted, start)
                chunks.append(jax.tree.map(lambda leaf, places=places: leaf[places], results))
            return chunks

        starts = range(first, max(members.stop, first + 1), self.chunk)
        data = digest((jax.random.key_data(self.key), self.data))
        chunks = divided(train_chunks, starts, f"{name} {starts} of {data}")
        return jax.tree.map(lambda *parts: np.concatenate(parts), *chunks)

    def _train_chunk(
        self,
        start: int,
        wanted: range,
        uncertainty: Uncertainty,
        mode: NDArray | None,
        run: Checkpoint | None,
        name: str,
        report: Callable[[float, NDArray], None] | None,
    ) -> _Results:
        indices = np.arange(start, start + self.chunk, dtype=np.uint32)
        of = _Programs(self.architecture, self.method, self.mesh)
        members, state = _start(of, uncertainty, self.key, indices, self.data, mode)
        # Places of members that are not asked for are idle.
        idle = np.ones(self.chunk, bool)
        idle[_within(wanted, start)] = False
        converged = np.asarray(state.converged) | idle
        # Where it was: from elsewhere the next program would be compiled twice.
        state = state._replace(converged=jax.device_put(converged, state.converged.sharding))
        results_like = jax.eval_shape(partial(_finish, of), members, state, self.data)
        if run is not None:
            results = run.load(name, results_like)
            if results is not None:
                return results
            saved_state = run.load(f"{name}-training", state)
            state = state if saved_state is None else saved_state
        saved = time.monotonic()
        # Passes in mini-batches are long, and go on to the end.
        passes = getattr(self.method, "n_passes", 0)
        block = 1 if passes or _is_step_by_step(self.mesh, self.data) else _BLOCK
        while True:
            taken = int(np.asarray(state.n_iter).max())
            limit = min(taken + block, self.max_iter)
            state = _advance(of, members, state, self.data, limit)
            converged = np.asarray(state.converged)  # waits for the block
            if report is not None:
                share = np.maximum(converged, limit / passes) if passes else converged
                report(float(np.sum(share[~idle])), np.asarray(state.gap)[~idle & ~converged])
            if converged.all() or limit == self.max_iter:
                break
            if run is not None and time.monotonic() - saved > _CHECKPOINT_SECONDS:
                run.save(f"{name}-training", state)
                saved = time.monotonic()
        results = jax.tree.map(np.asarray, _judged(of, members, state, self.data))
        if run is not None:
            run.save(name, results)
            run.remove(f"{name}-training")
        return results

    def _optimizer(self) -> dict[str, str]:
        if not isinstance(self.method, Optax):
            return {}
        rule = name_without_addresses(update_rule(self.method.optimizer))
        return {"optimizer": hashlib.sha256(rule.encode()).hexdigest()[:16]}

    def _first_network(self, X: Array) -> dict[str, list[float]]:
        """Outputs of the first member's network before training, and their gradient's norm."""
        outputs = self.data.y.shape[1]
        initial, _ = draw(self.architecture, self.key, 0, in_features(X), outputs)
        f, slope = jax.jit(partial(_function, self.architecture))(initial, X)
        return {
            "network at points": np.ravel(f).tolist(),
            "norm of its gradient": [float(slope)],
        }

    def checkpoint(self, directory: str | os.PathLike, uncertainty: Uncertainty) -> Checkpoint:
        """Checkpoint for what this trains, labelled with all that its results depend on."""
        X, y, likelihood, reg, tol = self.data
        return Checkpoint(
            directory,
            {
                "architecture": name_without_addresses(self.architecture),
                **self._first_network(probes(X)),
                "method": name_without_addresses(self.method),
                **self._optimizer(),
                "X": digest(X),
                "y": digest(y),
                "likelihood": f"{type(likelihood).__name__} {digest(likelihood)}",
                "uncertainty": uncertainty,
                "reg": repr(float(reg)),
                "tol": repr(float(tol)),
                "max_iter": str(self.max_iter),
                "key": digest(jax.random.key_data(self.key)),
                "members at once": str(self.chunk),
            },
        )


def _within(members: range, start: int) -> slice:
    """Places of members in the chunk that starts at `start`."""
    return slice(members.start - start, members.stop - start)


def _report(progress: Progress, first: int, total: int, done: float, gaps: NDArray) -> None:
    progress(first + float(done), total, gap=float(gaps.max(initial=0.0)))


def _function(architecture: BaseArchitecture, params: Any, X: Array) -> tuple[Array, Array]:
    """Outputs, and the norm of their sum's gradient."""
    f, pull = jax.vjp(lambda params: architecture.apply(params, X), params)
    return f, norm(pull(jnp.ones_like(f)))


# Programs. Each device runs its own part of a chunk, with its own loop.


def trains_one_by_one(platform: str, X: Any) -> bool:
    """Whether a device trains its members one after the other, by steps outside of a loop.

    Of images on a CPU: convolutions of several networks at once are grouped ones, three times
    slower than one network's after the other, and in the body of a loop XLA makes all of them ten
    times slower (jax-ml/jax, issue 12868).
    """
    return platform == "cpu" and X.ndim > 2


def _is_step_by_step(mesh: Mesh, data: _Data) -> bool:
    return trains_one_by_one(mesh.devices.flat[0].platform, data.X)


def _on_each_device(mesh: Mesh, function: Callable, *args: Any, everywhere: tuple = ()) -> Any:
    """function(*args, *everywhere) with the leading axis of `args` spread over the devices."""
    specs = (*[P(_MEMBERS)] * len(args), *[P()] * len(everywhere))
    return jax.shard_map(
        function, mesh=mesh, in_specs=specs, out_specs=P(_MEMBERS), check_vma=False
    )(*args, *everywhere)


@partial(jax.jit, static_argnums=(0, 1))
def _start(
    of: _Programs,
    uncertainty: Uncertainty,
    key: Array,
    indices: Array,
    data: _Data,
    mode: Array | None,
) -> tuple[Member, Any]:
    """Members and the state in which they start."""
    X, y, likelihood, reg, _ = data

    def one(i: Array, key: Array, data: _Data, mode: Array | None) -> tuple[Member, Any]:
        initial, tangent = draw(of.architecture, key, i, in_features(X), y.shape[1])
        shift = prior_function(of.architecture, uncertainty, initial, tangent, reg, X)
        noise = label_noise(uncertainty, key, i, likelihood, mode, y)
        shift = jnp.broadcast_to(shift, y.shape)
        member = Member(initial, shift, noise, batch_key(key, i))
        return member, of.method.start(Problem(of.architecture.apply, *data), member)

    def device(indices: Array, *everywhere: Any) -> tuple[Member, Any]:
        return jax.vmap(one, (0, None, None, None))(indices, *everywhere)

    return _on_each_device(of.mesh, device, indices, everywhere=(key, data, mode))


def _advance(of: _Programs, members: Member, state: Any, data: _Data, limit: int) -> Any:
    """Iterate until `limit` iterations were taken or every member has converged.

    Where steps are taken one by one `limit` is the next.
    """
    if not _is_step_by_step(of.mesh, data):
        return _iterate(of, members, state, data, limit)
    if not isinstance(of.method, Optax):
        return _step(of, "step", members, state, data)
    # A pass is a loop too, also of one step.
    batches = _batches(of, members, state, data)
    for k in range(batches.shape[1]):
        state = _step(of, "update", members, state, data, batches[:, k])
    return _step(of, "settle", members, state, data)


@partial(jax.jit, static_argnums=0, donate_argnums=2)
def _iterate(of: _Programs, members: Member, state: Any, data: _Data, limit: int) -> Any:
    """A loop of steps."""

    def device(members: Member, state: Any, data: _Data, limit: Array) -> Any:
        step = jax.vmap(partial(of.method.step, Problem(of.architecture.apply, *data)))

        def unfinished(state: Any) -> Array:
            return jnp.any(~state.converged & (state.n_iter < limit))

        return lax.while_loop(unfinished, lambda state: step(members, state), state)

    return _on_each_device(of.mesh, device, members, state, everywhere=(data, limit))


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=3)
def _step(of: _Programs, name: str, members: Member, state: Any, data: _Data, *batch: Array) -> Any:
    """A step, or a part of one, of which the name is the method's."""

    def device(members: Member, state: Any, *rest: Any) -> Any:
        *batch, data = rest
        step = partial(getattr(of.method, name), Problem(of.architecture.apply, *data))
        return jax.vmap(step)(members, state, *batch)

    return _on_each_device(of.mesh, device, members, state, *batch, everywhere=(data,))


@partial(jax.jit, static_argnums=0)
def _batches(of: _Programs, members: Member, state: Any, data: _Data) -> Array:
    """Mini-batches of each member's next pass."""
    method = cast(Optax, of.method)

    def device(members: Member, state: Any) -> Array:
        return jax.vmap(partial(method.batches, n=len(data.X)))(members, state)

    return _on_each_device(of.mesh, device, members, state)


def _judged(of: _Programs, members: Member, state: Any, data: _Data) -> _Results:
    """What is kept of members that are done, and whether they are at a minimum."""
    results = _finish(of, members, state, data)
    if not of.method.seeks_minimum or not _is_step_by_step(of.mesh, data):
        return results
    step = _newton(of, members, state, data, None)
    while np.any(np.asarray(step.undecided & state.converged)):
        step = _newton(of, members, state, data, step)
    return results._replace(converged=results.converged & ~step.decreases)


@partial(jax.jit, static_argnums=0)
def _newton(
    of: _Programs, members: Member, state: Any, data: _Data, step: NewtonStep | None
) -> NewtonStep:
    """What is known of each member's Newton step after one more product, or before the first."""

    def one(member: Member, state: Any, step: NewtonStep | None, data: _Data) -> NewtonStep:
        of_member = Problem(of.architecture.apply, *data), member, state.params
        if step is None:
            return newton_start(*of_member)
        return newton_product(hessian(*of_member), step)

    def device(*args: Any) -> NewtonStep:
        return jax.vmap(one, (0, 0, 0, None))(*args)

    return _on_each_device(of.mesh, device, members, state, step, everywhere=(data,))


@partial(jax.jit, static_argnums=0)
def _finish(of: _Programs, members: Member, state: Any, data: _Data) -> _Results:
    """What is kept of members that are done."""

    def one(member: Member, state: Any, data: _Data) -> _Results:
        problem = Problem(of.architecture.apply, *data)
        (value, latents), gradient = jax.value_and_grad(objective, 2, has_aux=True)(
            problem, member, state.params
        )
        converged = state.converged
        if of.method.seeks_minimum and not _is_step_by_step(of.mesh, data):
            converged = converged & ~is_stuck(problem, member, state.params, converged)
        return _Results(state.params, state.n_iter, converged, value, norm(gradient), latents)

    def device(members: Member, state: Any, data: _Data) -> _Results:
        return jax.vmap(one, (0, 0, None))(members, state, data)

    return _on_each_device(of.mesh, device, members, state, everywhere=(data,))
