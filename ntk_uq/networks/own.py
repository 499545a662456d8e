"""A network of the user's own: a Flax module, and its kernels at infinite width."""

import functools
import inspect
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from numpy.typing import ArrayLike

from ntk_uq._common import checks
from ntk_uq._common.progress import Progress
from ntk_uq._common.rules import own_rules
from ntk_uq.networks import read_off
from ntk_uq.networks.architecture import TILE, BaseArchitecture, Kernels, ModuleFactory
from ntk_uq.networks.jacobians import jacobian_kernel
from ntk_uq.networks.parameter_laws import ParameterLaw, parameter_laws
from ntk_uq.networks.stax_kernels import stax_kernel_diag, stax_kernels

__all__ = ["Architecture", "EmpiricalKernels"]

# Networks whose mean the empirical kernels are, and outputs of each.
_NETWORKS, _OUTPUTS = 64, 8
# Points on a side of a block of empirical kernels: a pair of points costs as much as many of a
# formula, and memory holds their Jacobians.
_ROWS = 32


class EmpiricalKernels(Kernels):
    """Kernels that are means over finite networks.

    Attributes
    ----------
    standard_error : Kernels
        Monte-Carlo standard error of each entry. What the width is short of infinity comes on top.
    """

    standard_error: Kernels


class _Scaled(nnx.Module):
    """A network whose parameters are mean + scale x what is held."""

    def __init__(self, network: nnx.Module, laws: tuple[ParameterLaw, ...]):
        self.network = network
        self.laws = laws

    def __call__(self, x: jax.Array) -> jax.Array:
        leaves, structure = jax.tree.flatten(self.network)
        scaled = [
            law.mean + law.scale * leaf if law.scale else jnp.full_like(leaf, law.mean)
            for law, leaf in zip(self.laws, leaves, strict=True)
        ]
        return jax.tree.unflatten(structure, scaled)(x)


@dataclass(frozen=True, init=False)
class Architecture(BaseArchitecture):
    """Any Flax NNX module, with the kernels that it has at infinite width.

    The kernels are read off the module: its forward pass is carried out on covariances in place of
    numbers. What has no infinite-width limit that is known, as attention or max pooling, is refused
    by the name of the operation and the line of the module.

    Parameters
    ----------
    module : callable
        ``module(in_features, out_features, rngs=rngs)`` builds the network; a subclass of
        ``nnx.Module`` with that signature will do. It maps points [n, d], or images [n, h, w, c]
        with `in_features` their shape (h, w, c), to outputs [n, C].
    kernel_fn : callable, optional
        In place of kernels that are read off: the ``kernel_fn`` of a network with the same layers
        from ``ntk_uq.stax``, which is neural-tangents' module made to import on a current JAX.
    kernels : {"read_off", "empirical"}, default "read_off"
        "empirical": the mean over finite networks at their start, `n_networks` of them. What
        `kernels` returns then has a ``standard_error``.
    parameterization : {"ntk", "own"}, default "ntk"
        "ntk": every parameter is written as its scale times a standard normal number, the scale
        being that of the module's initialiser (see `laws`), so that `reg` means the same for every
        network and training is lazy at large width. Parameters that start at a constant other than
        0, the scales of a normalisation, stay there. "own": the module's parameters as they are.
    b_std : float, default 0.3
        Scale of biases that start at 0, in NTK parameterisation.
    width : int, optional
        Given to the module by that name, ``module(..., width=width, rngs=rngs)``: for modules whose
        widths are an argument.
    n_networks : int, optional
        Networks of "empirical" kernels, by default 64.

    Raises
    ------
    ValueError
        If `module` is a network and not what makes one, an argument is out of its range, or the
        module has no argument `width` where one is given.

    Examples
    --------
    >>> import jax
    >>> import numpy as np
    >>> from flax import nnx
    >>> class Network(nnx.Module):
    ...     def __init__(self, in_features, out_features, *, width=64, rngs):
    ...         self.hidden = nnx.Linear(in_features, width, rngs=rngs)
    ...         self.readout = nnx.Linear(width, out_features, rngs=rngs)
    ...
    ...     def __call__(self, x):
    ...         return self.readout(nnx.swish(self.hidden(x)))
    >>> net = Architecture(Network)
    >>> X = np.array([[1.0, 2.0], [0.0, -1.0], [3.0, 0.5]])
    >>> net.kernels(X).ntk.shape
    (3, 3)
    >>> params = net.with_width(8).init(jax.random.key(0), in_features=2, out_features=3)
    >>> net.apply(params, X).shape
    (3, 3)
    """

    module: ModuleFactory
    kernel_fn: Callable[..., Any] | None = None
    parameterization: Literal["ntk", "own"] = "ntk"
    b_std: float = 0.3
    width: int | None = None
    n_networks: int | None = None
    ndim: ClassVar[int | None] = None
    holds_functions: ClassVar[bool] = True

    def __init__(
        self,
        module: ModuleFactory,
        kernel_fn: Callable[..., Any] | None = None,
        *,
        kernels: Literal["read_off", "empirical"] | None = None,
        parameterization: Literal["ntk", "own"] = "ntk",
        b_std: float = 0.3,
        width: int | None = None,
        n_networks: int | None = None,
    ):
        if isinstance(module, nnx.Module) or not callable(module):
            raise ValueError(
                "module must be a function or class that builds a network, called as "
                f"module(in_features, out_features, rngs=rngs); got {type(module).__name__}. "
                "An ensemble builds many networks: pass the class, not an instance. One that is "
                "trained already is for nuq.Linearized."
            )
        if not (kernel_fn is None or callable(kernel_fn)):
            raise ValueError(
                "kernel_fn must be the third function of a neural_tangents.stax network; got "
                f"{type(kernel_fn).__name__}."
            )
        if kernels not in (None, "read_off", "empirical"):
            raise ValueError(f'kernels must be "read_off" or "empirical"; got {kernels!r}.')
        if parameterization not in ("ntk", "own"):
            raise ValueError(f'parameterization must be "ntk" or "own"; got {parameterization!r}.')
        checks.real("b_std", b_std, minimum=0.0)
        if n_networks is not None:
            checks.count("n_networks", n_networks, 2)
        if kernels == "empirical":
            n_networks = n_networks or _NETWORKS
        if n_networks is not None and (kernel_fn is not None or kernels == "read_off"):
            raise ValueError(
                'n_networks belongs to kernels="empirical"; leave out '
                f"{'kernel_fn' if kernel_fn is not None else 'one of them'}."
            )
        if width is not None:
            checks.count("width", width, 1)
            _check_width(module)
        values = (module, kernel_fn, parameterization, b_std, width, n_networks)
        for field, value in zip(fields(self), values, strict=True):
            object.__setattr__(self, field.name, value)

    @property
    def _standard_normal(self) -> bool:  # type: ignore[override]
        return self.parameterization == "ntk"

    def with_width(self, width: int) -> Self:
        """The same architecture of another width.

        Parameters
        ----------
        width : int
            Given to the module as its argument ``width``.

        Raises
        ------
        ValueError
            If the module takes none.
        """
        return replace(self, width=width)

    def laws(self, in_features: Any, out_features: int) -> tuple[ParameterLaw, ...]:
        """What each parameter's initialiser draws, and the scale that it has from there.

        Parameters
        ----------
        in_features, out_features : int
            Number of inputs d and of outputs C; for images the shape (h, w, c).

        Returns
        -------
        tuple of ParameterLaw
            In the order of the parameters; printed, a line each.
        """
        b_std = float(self.b_std) if self.parameterization == "ntk" else 0.0
        return parameter_laws(self._factory, in_features, out_features, b_std)

    @property
    def _factory(self) -> Any:
        module: Any = self.module
        return _with_width(module, self.width)

    def build(self, in_features: Any, out_features: int, *, rngs: nnx.Rngs) -> nnx.Module:
        """Build one network; in NTK parameterisation its parameters are the standard normal."""
        called = f"called with in_features={in_features}, out_features={out_features} and rngs"
        with _mistakes_of(self.module, called):
            module = self._factory(in_features, out_features, rngs=rngs)
        _check_state(module)
        if self.parameterization == "own":
            return module
        return _Scaled(module, self.laws(in_features, out_features))

    @own_rules()
    def apply(self, params: Any, x: ArrayLike) -> jax.Array:
        """Outputs (logits) [n, C] of the network `params` at the points `x` [n, d]."""
        with _mistakes_of(self.module, f"called with points of shape {np.shape(x)}"):
            return params(x)

    # --- Kernels ----------------------------------------------------------------------------------

    def kernels(
        self, X1: ArrayLike, X2: ArrayLike | None = None, *, progress: Progress | None = None
    ) -> Kernels:
        """NNGP kernel and NTK of the infinitely wide network, or means over finite ones.

        As of every architecture; with ``kernels="empirical"`` an `EmpiricalKernels`.
        """
        found = super().kernels(X1, X2, progress=progress)
        if self.n_networks is None:
            return found
        result = EmpiricalKernels(*found)
        result.standard_error = _Errors(self).kernels(X1, X2)
        return result

    def kernel_block(self, x1: jax.Array, x2: jax.Array | None = None) -> Kernels:
        """Kernels [n1, n2] as JAX arrays in the points' dtype; of `x1` with itself without `x2`."""
        if self.kernel_fn is not None:
            return stax_kernels(self.kernel_fn, x1, x2)
        if self.n_networks is not None:
            read_off.check_points_apart(self, x1.shape[1:])
            return _mean_kernels(self, x1, x2)[0]
        return read_off.read_kernels(self, x1, x2)

    def kernel_diag_block(self, x: jax.Array) -> Kernels:
        """Diagonals [n] of the kernels as JAX arrays in the points' dtype."""
        if self.kernel_fn is not None:
            return stax_kernel_diag(self.kernel_fn, x)
        if self.n_networks is not None:
            return Kernels(*(jnp.diagonal(kernel) for kernel in self.kernel_block(x)))
        return read_off.read_kernel_diag(self, x)

    def tile_rows(self, point: np.ndarray) -> int:
        """Points on a side of a kernel's block that is computed at once."""
        if self.n_networks is not None:
            return _ROWS
        if self.kernel_fn is not None:
            return TILE
        return read_off.rows_at_once(point)


def _check_width(module: Any) -> None:
    call = module.__init__ if isinstance(module, type) else module  # type: ignore[misc]
    try:
        parameters = inspect.signature(call).parameters
    except (TypeError, ValueError):
        return
    keywords = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    if not (keywords or "width" in parameters):
        raise ValueError(
            f"{getattr(module, '__name__', module)} takes no width: give it an argument, "
            "__init__(self, in_features, out_features, *, width=256, rngs), of which its layers' "
            "widths are made."
        )


@functools.lru_cache
def _with_width(module: Any, width: int | None) -> Any:
    return module if width is None else functools.partial(module, width=width)


@contextmanager
def _mistakes_of(module: Any, called: str) -> Iterator[None]:
    """Say of an error in the user's own code that it is there, and where."""
    try:
        yield
    except (TypeError, ValueError, LookupError, AttributeError, NameError, AssertionError) as error:
        name = getattr(module, "__name__", type(module).__name__)
        frames = traceback.extract_tb(error.__traceback__)
        lines = [f", {f.filename}:{f.lineno} ({f.name})" for f in frames if read_off.is_users(f)]
        where = lines[-1] if lines else ""
        raise ValueError(
            f"{name} failed, {called}{where}: {type(error).__name__}: {error}"
        ) from error


def _check_state(module: Any) -> None:
    """Refuse what is no network, or more than a function of parameters and input."""
    if not isinstance(module, nnx.Module):
        raise ValueError(
            "module(in_features, out_features, rngs=rngs) must return a flax.nnx.Module; it "
            f"returned {type(module).__name__}."
        )
    other_state = nnx.to_flat_state(nnx.state(module, nnx.Not(nnx.Param)))
    if other_state:
        held = ", ".join(
            f"{'.'.join(map(str, path))}: {type(variable).__name__}"
            for path, variable in sorted(other_state, key=lambda item: str(item[0]))
        )
        raise ValueError(
            f"{type(module).__name__} holds state besides its parameters ({held}), "
            "as batch normalisation and dropout do. An output that depends on the rest of the "
            "batch, or on fresh noise, is no function of parameters and input, and has no "
            "tangent kernel: take these layers out."
        )


# --- Empirical ------------------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnums=0)
def _kernels_of_one(
    architecture: Architecture, key: jax.Array, x1: jax.Array, x2: jax.Array | None
) -> Kernels:
    """Products of the outputs and of the Jacobians of a network at its start, [n1, n2]."""
    shape = x1.shape[1:]
    network = architecture.init(key, shape[0] if len(shape) == 1 else shape, _OUTPUTS)
    left = architecture.apply(network, x1)
    right = left if x2 is None else architecture.apply(network, x2)
    nngp = left @ right.T / _OUTPUTS
    return Kernels(nngp, jacobian_kernel(architecture, network, x1, x2, True))


def _mean_kernels(
    architecture: Architecture, x1: jax.Array, x2: jax.Array | None
) -> tuple[Kernels, Kernels]:
    """Means over networks at their start, and their standard errors."""
    count = architecture.n_networks
    assert count is not None
    sums: list[Any] = [0.0, 0.0]
    squares: list[Any] = [0.0, 0.0]
    with own_rules():
        for key in jax.random.split(jax.random.key(0), count):
            for i, kernel in enumerate(_kernels_of_one(architecture, key, x1, x2)):
                sums[i] = sums[i] + kernel
                squares[i] = squares[i] + kernel**2
    means = Kernels(*(total / count for total in sums))
    errors = Kernels(
        *(
            jnp.sqrt(jnp.maximum(square / count - mean**2, 0) / (count - 1))
            for square, mean in zip(squares, means, strict=True)
        )
    )
    return means, errors


class _Errors(BaseArchitecture):
    """Standard errors of empirical kernels, block by block as the kernels are."""

    ndim = None

    def __init__(self, architecture: Architecture):
        self.architecture = architecture

    def tile_rows(self, point: np.ndarray) -> int:
        return self.architecture.tile_rows(point)

    def kernel_block(self, x1: jax.Array, x2: jax.Array | None = None) -> Kernels:
        return _mean_kernels(self.architecture, x1, x2)[1]

    def kernel_diag_block(self, x: jax.Array) -> Kernels:
        return Kernels(*(jnp.diagonal(kernel) for kernel in self.kernel_block(x)))
