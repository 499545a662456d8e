"""How many members are trained at once, on which devices, by the memory there is."""

import platform
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import AxisType, Mesh

from ntk_uq._common.machine import free_memory
from ntk_uq._common.processes import gather
from ntk_uq.ensemble.members import in_features
from ntk_uq.ensemble.objective import Member, Method, Problem
from ntk_uq.ensemble.trainer import _MEMBERS, _Data, trains_one_by_one
from ntk_uq.networks.architecture import BaseArchitecture

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


def _layout(
    architecture: BaseArchitecture,
    method: Method,
    data: _Data,
    memory: int | None,
    devices: Sequence[jax.Device] | None,
) -> tuple[Mesh, int]:
    """Devices of this process, and members that they train at once: as many in every process."""
    own = jax.local_devices()
    devices = own if devices is None else list(devices)
    if any(device not in own for device in devices):
        raise ValueError(
            f"devices must be of this process, jax.local_devices(): {own}; got {devices}. Others "
            "train their share of the members themselves."
        )
    needed = _member_bytes(architecture, method, data)
    given = _free_bytes(devices) * _MEMORY_SHARE if memory is None else memory
    given = min(gather(given, "memory of members"))
    if given < needed:
        raise ValueError(
            f"Training one member takes about {needed / 2**20:.0f} MiB, and the memory to use is "
            f"{given / 2**20:.0f} MiB on each device. Give more memory, a smaller network, or an "
            "optimizer with a batch_size."
        )
    if trains_one_by_one(devices[0].platform, data.X):
        most = 1
    elif devices[0].platform == "cpu":
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
    machines = gather(platform.node(), "names of machines")
    return free_memory() / (len(devices) * machines.count(platform.node()))


def _member_bytes(architecture: BaseArchitecture, method: Method, data: _Data) -> int:
    """Memory that training one member takes: states, parameters on the way, activations."""

    def saved_for_gradient(params: Any, X: Array) -> Any:
        return jax.vjp(lambda params: architecture.apply(params, X), params)[1]

    member, state = _started(architecture, method, data)
    rows = getattr(method, "batch_size", None) or len(data.X)
    activations = jax.eval_shape(saved_for_gradient, member.initial, data.X[:rows])
    # The old state and the new one; two sets of parameters between them; each saved activation
    # meets a cotangent of its size.
    return _bytes(member.initial) * 3 + 2 * _bytes(state) + 2 * _bytes(activations)


def _started(architecture: BaseArchitecture, method: Method, data: _Data) -> tuple[Member, Any]:
    """Shapes of a member and the state in which it starts."""

    def start(key: Array) -> tuple[Member, Any]:
        initial = architecture.init(key, in_features(data.X), data.y.shape[1])
        member = Member(initial, jnp.zeros_like(data.y), jnp.zeros_like(data.y), key)
        return member, method.start(Problem(architecture.apply, *data), member)

    return jax.eval_shape(start, jax.random.key(0))


def _bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
