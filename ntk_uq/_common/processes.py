"""Several processes of `jax.distributed`: each does a share of the work, and all have all of it.

Every process runs the same program. Work is divided by the index of a member, a draw or a chain, to
which its random numbers belong: results are those of one process. What is not divided each process
does for itself. Nothing is exchanged but results, and, where they share a matrix, its products
(`divided_tiles`).
"""

import itertools
import os
import pickle
import sys
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "DividedWorkError", "count", "divided", "gather", "is_first", "join", "leave", "number", "once",
    "total",
]  # fmt: skip

# Processes keep step by counting what they have divided.
_TURNS = itertools.count()
# What is no larger travels through the coordinator, in bytes: collectives are a hundred times
# faster, and take a second to begin.
_SMALL = 2**16
# What one collective takes of each process, in bytes.
_PIECE = 2**28
# Between two looks at an interrupt while others work, in milliseconds.
_LOOK = 1000


class DividedWorkError(RuntimeError):
    """Another process failed, or does something else."""


class _Message(NamedTuple):
    task: str
    size: int = 0
    content: bytes | None = None  # of what is small
    error: str | None = None


def count() -> int:
    """How many processes there are: one, where `jax.distributed` was not initialised."""
    state = _distributed()
    return 1 if state is None else state.num_processes


def number() -> int:
    """Which process this is, from 0."""
    state = _distributed()
    return 0 if state is None else state.process_id


def is_first() -> bool:
    """Whether this is the process that writes files and shows progress."""
    return number() == 0


def divided(
    work: Callable[[Sequence[Any]], Sequence[Any]], items: Sequence[Any], task: str
) -> list[Any]:
    """Results of all items, in their order, of which each process computes a share.

    All processes call this, from their main thread, in the same order.

    Parameters
    ----------
    work : callable
        ``work(share)`` gives a pytree of arrays for each item of consecutive ones, maybe of none.
    items : sequence
        The same in every process.
    task : str
        What is done, and of which data: processes that do different things are told.

    Returns
    -------
    list
        Arrays of other processes are NumPy's.

    Raises
    ------
    DividedWorkError
        If another process failed, or does something else.

    Examples
    --------
    >>> divided(lambda share: [item**2 for item in share], range(4), "squares")
    [0, 1, 4, 9]
    """
    n = count()
    if n == 1:
        return list(work(items))
    import jax

    turn, p = next(_TURNS), number()
    start, stop = (-(-k * len(items) // n) for k in (p, p + 1))
    try:
        results = jax.tree.map(np.asarray, list(work(items[start:stop])))
        content = pickle.dumps(results, pickle.HIGHEST_PROTOCOL)
    except BaseException as error:
        _send_error(turn, error)
        raise
    return [result for part in _exchanged(turn, task, content) for result in pickle.loads(part)]


def gather(value: Any, task: str) -> list[Any]:
    """The value of every process, in their order.

    Parameters
    ----------
    value : Any
        This process's.
    task : str
        As in `divided`.

    Examples
    --------
    >>> gather(3, "free memory")
    [3]
    """
    if count() == 1:
        return [value]
    content = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    return [pickle.loads(part) for part in _exchanged(next(_TURNS), task, content)]


def total(array: NDArray, task: str) -> NDArray:
    """The sum of the arrays of all processes.

    Parameters
    ----------
    array : array
        This process's, of one shape and type in all.
    task : str
        As in `divided`.

    Examples
    --------
    >>> import numpy as np
    >>> total(np.array([1.0, 2.0]), "sums")
    array([1., 2.])
    """
    if count() == 1:
        return array
    # A collective waits for others half a minute; a message as long as it takes.
    gather((array.shape, array.dtype.str), task)
    summed = _collective(array.ravel(), array.size, _Collectives.get().sum)
    return summed[: array.size].reshape(array.shape)


class _Collectives(NamedTuple):
    """How arrays are divided of which each process has one, and programs that bring them together.

    Those of `multihost_utils` take four times as long.
    """

    each: Any
    sum: Any
    all: Any

    @staticmethod
    @lru_cache
    def get() -> "_Collectives":
        import jax
        from jax.sharding import Mesh, NamedSharding, PartitionSpec

        one_of_each = {device.process_index: device for device in reversed(jax.devices())}
        mesh = Mesh(np.array([one_of_each[p] for p in range(count())]), "process")
        each, everywhere = (
            NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("process",), ())
        )
        return _Collectives(
            each,
            jax.jit(lambda arrays: arrays.sum(axis=0), out_shardings=everywhere),
            jax.jit(lambda arrays: arrays, out_shardings=everywhere),
        )


def _collective(own: NDArray, size: int, program: Any) -> NDArray:
    """What a program makes of arrays of all processes, up to so long, that zeros fill up.

    To one of eight sizes an octave: each is a program to compile, and columns become fewer as draws
    are solved.
    """
    import jax

    step = max(1, 2 ** (size.bit_length() - 4))
    padded = np.zeros(-(-size // step) * step, own.dtype)
    padded[: own.size] = own
    with jax.enable_x64(True):
        arrays = jax.make_array_from_process_local_data(_Collectives.get().each, padded[None])
        return np.asarray(program(arrays).addressable_data(0))


def once(work: Callable[[], Any], task: str) -> None:
    """Have the first process do something, and the others wait until it has.

    Parameters
    ----------
    work : callable
        Takes nothing; what it returns is lost.
    task : str
        As in `divided`.

    Examples
    --------
    >>> once(lambda: print("done"), "a line")
    done
    """

    def all_of(share: Sequence[None]) -> list[None]:
        for _ in share:
            work()
        return [None] * len(share)

    divided(all_of, [None], task)


def join(environment: dict[str, str] | None = None) -> None:
    """Initialise `jax.distributed` by the environment, before JAX computes anything.

    Slurm, Open MPI and Kubernetes are found by JAX. Elsewhere JAX_COORDINATOR_ADDRESS is
    host:port of the first process, JAX_NUM_PROCESSES how many there are, and JAX_PROCESS_ID which
    one this is, from 0.

    Parameters
    ----------
    environment : dict, optional
        That of the process by default.

    Raises
    ------
    ValueError
        If only some of these are there, or neither these nor a cluster that JAX knows.
    """
    import jax

    given = os.environ if environment is None else environment
    names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    values = [given.get(name) for name in names]
    if not any(values[1:]):
        try:
            jax.distributed.initialize()
        except ValueError as error:
            raise ValueError(
                f"no cluster was found ({error}): start every process by srun or mpirun, or give "
                f"{', '.join(names)}"
            ) from None
        return
    missing = [name for name, value in zip(names, values, strict=True) if not value]
    if missing:
        raise ValueError(f"{', '.join(names)} belong together; missing: {', '.join(missing)}")
    address, n, p = values
    try:
        numbers = int(n or ""), int(p or "")
    except ValueError:
        raise ValueError(f"{names[1]}={n!r} and {names[2]}={p!r} must be whole numbers") from None
    jax.distributed.initialize(address, *numbers)


def leave(error: BaseException) -> None:
    """Tell the others, who will wait for this process, that it has failed.

    Parameters
    ----------
    error : BaseException
        What they are told.

    Examples
    --------
    >>> leave(ValueError("no such file"))  # nobody waits for a single process
    """
    if count() > 1:
        _send_error(next(_TURNS), error)


def _distributed() -> Any:
    """JAX's state of several processes; None of one alone, and where JAX was not imported."""
    module = sys.modules.get("jax._src.distributed")
    # The coordinator's client is private in JAX, and in use by Orbax and others: collectives alone
    # wait for others no longer than 30 seconds.
    return None if module is None or module.global_state.client is None else module.global_state


def _send(turn: int, message: _Message) -> None:
    state = _distributed()
    state.client.key_value_set_bytes(_key(turn, state.process_id), pickle.dumps(tuple(message)))


def _send_error(turn: int, error: BaseException) -> None:
    _send(turn, _Message("", error=f"{type(error).__name__}: {error}"))


def _heard(turn: int, process: int) -> _Message:
    """The message of a process, however long it works on: if it dies, JAX ends this one too."""
    import jax

    while True:
        try:
            got = _distributed().client.blocking_key_value_get_bytes(_key(turn, process), _LOOK)
            return _Message(*pickle.loads(got))
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise


def _key(turn: int, process: int) -> str:
    return f"ntk_uq/{turn}/{process}"


def _exchanged(turn: int, task: str, content: bytes) -> Sequence[bytes | memoryview]:
    """What every process has to give, of any size, in their order."""
    small = len(content) <= _SMALL
    _send(turn, _Message(task, len(content), content if small else None))
    heard = [_heard(turn, process) for process in range(count())]
    for process, message in enumerate(heard):
        if message.error is not None:
            raise DividedWorkError(
                f"Process {process} of {len(heard)} ended with {message.error}. What the others "
                "had computed is in the checkpoint, if there is one."
            )
        if message.task != task:
            raise DividedWorkError(
                f"Processes of jax.distributed must run the same program on the same data, with "
                f"the same random_state: here it is {task}, in process {process} {message.task}."
            )
    parts = [message.content for message in heard if message.content is not None]
    if len(parts) == len(heard):
        return parts
    return _gathered(content, [message.size for message in heard])


def _gathered(content: bytes, sizes: list[int]) -> list[memoryview]:
    """Contents of all processes, by collectives, which want them of one size."""
    own, pieces = np.frombuffer(content, np.uint8), []
    for k in range(0, max(sizes), _PIECE):
        size = min(_PIECE, max(sizes) - k)
        piece = _collective(own[k : k + size], size, _Collectives.get().all)
        pieces.append(piece[:, :size])
    rows = pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=1)
    return [memoryview(row[:size]) for row, size in zip(rows, sizes, strict=True)]
