"""A trained network where it stands: its outputs, and its tangent there.

docs/theory: "A trained network".
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from numpy.typing import ArrayLike, NDArray

from ntk_uq._common.progress import Progress
from ntk_uq._common.rules import own_rules
from ntk_uq.networks.architecture import BaseArchitecture, Kernels
from ntk_uq.networks.layerwise import jacobian_of, kernel_of, pull_of, push_of, rows_of

__all__ = ["Linearized", "Tangent", "TangentProducts"]

Floats = NDArray[np.floating]
# For the derivatives of a block of points; two are held at a time.
_BLOCK_BYTES = 2**28
_PRIOR_MEANS = ("model", "zero")


@dataclass(frozen=True, eq=False, repr=False)
class Linearized(BaseArchitecture):
    r"""A trained Flax NNX network, linearised where it stands.

    With the trained parameters :math:`\theta^*` and the Jacobian J there, its functions are
    :math:`f(x; \theta^*) + J(x)(\theta - \theta^*)`, and the prior over its parameters is
    :math:`N(\theta^*, I / reg)`: a Gaussian process whose mean are the network's own outputs, and
    whose kernel is its empirical tangent kernel, divided by `reg`. `NTKClassifier` and
    `NTKRegressor` take it: uncertainty="posterior" is this prior given the data of `fit`, of which
    method="gaussian" is the linearised Laplace approximation, and uncertainty="none" its mode, the
    network fine-tuned to these data.

    Its C outputs share no kernel, and it has none at infinite width: `kernels` refuses,
    `tangent_kernel` gives the kernel of all outputs.

    Parameters
    ----------
    model : flax.nnx.Module
        The network, points [n, ...] to outputs [n, C]; for classes one logit for each label, in
        the labels' order. A copy is taken, in its evaluation mode (``model.eval()``): batch
        normalisation by its running averages, no dropout.
    parameters : nnx filter, default nnx.Param
        Which parameters have a distribution; all others stay as they are. Those of the last layer
        for example: ``nnx.All(nnx.Param, nnx.PathContains("readout"))``.
    prior_mean : {"model", "zero"}, default "model"
        Where the prior over the parameters has its mean. "model": where they stand, for data that
        the network has not seen. "zero": at zero, the prior of weight decay, for the data that the
        network was trained on: they are then not counted twice. Where training with the loss
        :math:`\sum_i \ell_i + \tfrac{reg}{2} \|\theta\|^2` has converged, the posterior's mode is
        the network as it stands.

    Raises
    ------
    ValueError
        If `model` is no network, or the filter chooses no parameter, or one that is no real number.

    References
    ----------
    Khan, Immer, Abedi and Korzepa 2019, arXiv 1906.01930; Immer, Korzepa and Bauer 2021, "Improving
    predictions of Bayesian neural nets via local linearization", arXiv 2008.08400.

    Examples
    --------
    >>> import numpy as np
    >>> from flax import nnx
    >>> from ntk_uq import Linearized, NTKClassifier
    >>> model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))  # trained, one hopes
    >>> net = Linearized(model)
    >>> X, y = np.random.default_rng(0).standard_normal((9, 2)), np.arange(9) % 3
    >>> clf = NTKClassifier(net, reg=1.0, uncertainty="posterior", n_draws=8).fit(X, y)
    >>> clf.predict_distribution(X).samples.shape
    (8, 9, 3)
    """

    model: nnx.Module
    parameters: Any = nnx.Param
    prior_mean: Literal["model", "zero"] = "model"
    tangent: "Tangent" = field(init=False, repr=False)
    ndim: ClassVar[int | None] = None
    holds_functions: ClassVar[bool] = True
    _standard_normal: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not isinstance(self.model, nnx.Module):
            given = getattr(self.model, "__name__", type(self.model).__name__)
            raise ValueError(
                "model must be a trained network, an instance of a flax.nnx.Module; got "
                f"{given}. What builds untrained ones is for Architecture."
            )
        if self.prior_mean not in _PRIOR_MEANS:
            raise ValueError(f'prior_mean must be "model" or "zero"; got {self.prior_mean!r}.')
        model = nnx.clone(self.model)
        model.eval()
        object.__setattr__(self, "model", model)
        graphdef, chosen, rest = nnx.split(model, self.parameters, ...)  # type: ignore[misc]
        leaves = jax.tree.leaves(chosen)
        if not leaves:
            raise ValueError(
                f"parameters={self.parameters!r} chooses none of the network's parameters, "
                f"{_paths(nnx.state(model, nnx.Param))}. Give nnx.Param for all, or an nnx filter: "
                'nnx.All(nnx.Param, nnx.PathContains("readout")) is of a layer of that name.'
            )
        if not all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves):
            raise ValueError(
                f"parameters={self.parameters!r} chooses {_paths(chosen)}, not all of which are "
                "real numbers that a network can be differentiated by. Give nnx.Param, or less."
            )
        object.__setattr__(self, "tangent", Tangent(chosen, rest, graphdef))

    def __repr__(self) -> str:
        chosen = "" if self.parameters is nnx.Param else f", {self.parameters!r}"
        model = f"{type(self.model).__name__}, {self.tangent.size:,} parameters"
        return f"Linearized(<{model}>{chosen}, prior_mean={self.prior_mean!r})"

    def module(self, in_features: Any, out_features: int, *, rngs: nnx.Rngs) -> nnx.Module:
        """Build no network: there is one."""
        raise ValueError("Linearized is of one trained network, and builds no others.")

    def init(self, key: jax.Array, in_features: Any, out_features: int) -> Any:
        """The network's chosen parameters as they stand: nothing is drawn."""
        return self.tangent.params

    @own_rules()
    def apply(self, params: Any, x: ArrayLike) -> jax.Array:
        """Outputs [n, C] of the network, not linearised, with other values of the parameters."""
        return self.tangent.outputs(params, jnp.asarray(x))

    def kernel_block(self, x1: jax.Array, x2: jax.Array | None = None) -> Kernels:
        """Refused: outputs share no kernel."""
        raise ValueError(
            "A trained network has no kernels at infinite width, and its outputs share none. "
            "Linearized is for NTKClassifier and NTKRegressor; its kernel of all outputs is "
            "net.tangent_kernel(net.tangent.params, X)."
        )

    def kernel_diag_block(self, x: jax.Array) -> Kernels:
        """Refused: outputs share no kernel."""
        return self.kernel_block(x)

    def kernels(
        self, X1: ArrayLike, X2: ArrayLike | None = None, *, progress: Progress | None = None
    ) -> Kernels:
        """Refused: outputs share no kernel, and there is none at infinite width."""
        return self.kernel_block(jnp.zeros(()))

    def kernel_diag(self, X: ArrayLike) -> Kernels:
        """Refused: outputs share no kernel, and there is none at infinite width."""
        return self.kernel_block(jnp.zeros(()))

    @own_rules()
    def tangent_kernel(
        self, params: Any, x1: jax.Array, x2: jax.Array | None = None, *, trace: bool = False
    ) -> jax.Array:
        """Tangent kernel J(x1) J(x2)^T where the parameters are `params`; see `empirical_ntk`."""
        kernel = replace(self.tangent, params=params).kernel(x1, x2)
        return jnp.asarray(np.einsum("icjc->ij", kernel) / kernel.shape[1] if trace else kernel)

    @property
    def arrays(self) -> list[np.ndarray]:
        """All numbers of the network, for a file: chosen parameters, and what stays as it is."""
        leaves = jax.tree.leaves((self.tangent.params, self.tangent.rest))
        return [np.asarray(leaf) for leaf in leaves if _is_number(leaf)]

    def with_arrays(self, arrays: list[np.ndarray]) -> "Linearized":
        """A network of the same structure with other numbers.

        Raises
        ------
        ValueError
            If they are not of this structure.
        """
        tangent = self.tangent
        leaves, structure = jax.tree.flatten((tangent.params, tangent.rest))
        numbers = [leaf for leaf in leaves if _is_number(leaf)]
        if [np.shape(a) for a in arrays] != [leaf.shape for leaf in numbers]:
            raise ValueError("its network has parameters of other shapes than the one given")
        given = iter(arrays)
        new = [
            jnp.asarray(next(given), leaf.dtype) if _is_number(leaf) else leaf for leaf in leaves
        ]
        params, rest = jax.tree.unflatten(structure, new)
        model = nnx.merge(tangent.graphdef, params, rest)
        return Linearized(model, self.parameters, self.prior_mean)


def _is_number(leaf: Any) -> bool:
    """Whether it is a number of the network's, and not the key of its random layers."""
    return not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _paths(state: Any) -> str:
    return ", ".join(".".join(map(str, path)) for path, _ in nnx.to_flat_state(state))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Tangent:
    """A network and its derivatives where its parameters are; parameters are one vector [P].

    Attributes
    ----------
    params : pytree
        Parameters that move.
    rest : pytree
        All else that it holds.
    graphdef : nnx.GraphDef
        Its code.

    Examples
    --------
    >>> import numpy as np
    >>> from flax import nnx
    >>> from ntk_uq import Linearized
    >>> tangent = Linearized(nnx.Linear(2, 3, rngs=nnx.Rngs(0))).tangent
    >>> x = np.ones((5, 2))
    >>> tangent.at(x).shape, tangent.push(x, np.zeros((4, tangent.size))).shape
    ((5, 3), (4, 5, 3))
    """

    params: Any
    rest: Any
    graphdef: Any = field(metadata={"static": True})

    def outputs(self, params: Any, x: Array) -> Array:
        """Outputs [n, C] with other values of the parameters; traceable."""
        return nnx.merge(self.graphdef, params, self.rest)(x)

    @property
    def size(self) -> int:
        """Number of parameters P."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.params))

    @property
    def vector(self) -> Floats:
        """The parameters, [P]."""
        return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(self.params)])

    @property
    def dtype(self) -> Any:
        """Precision of the parameters."""
        return jnp.result_type(*jax.tree.leaves(self.params))

    def cast(self, dtype: Any) -> "Tangent":
        """In another precision."""

        def number(leaf: Any) -> Any:
            real = jnp.issubdtype(leaf.dtype, jnp.floating)
            return jnp.asarray(leaf, dtype) if real else leaf

        return replace(self, **{k: jax.tree.map(number, getattr(self, k)) for k in _PARTS})

    def n_outputs(self, X: ArrayLike) -> int:
        """Outputs C.

        Raises
        ------
        ValueError
            If the network's outputs at n points are not [n, C], or it cannot take these points.
        """
        try:
            x = jax.ShapeDtypeStruct((2, *np.shape(X)[1:]), self.dtype)
            shape = jax.eval_shape(self.outputs, self.params, x).shape
        except Exception as error:
            raise ValueError(
                f"The network cannot take points of shape {np.shape(X)[1:]}: {error}"
            ) from error
        if len(shape) != 2 or shape[0] != 2:
            raise ValueError(
                f"The network gives outputs of shape {shape} at 2 points: outputs [n, C] at n "
                "points are needed, also of a single output."
            )
        return shape[1]

    def at(self, X: ArrayLike) -> Floats:
        """Outputs where the parameters are: [n, C]."""
        return self._by_blocks(_outputs, X, 1)

    def jacobian(self, X: ArrayLike) -> Floats:
        """J at n points, for where it fits: [n, C, P]."""
        return self._by_blocks(_jacobian, X, self.size)

    def push(self, X: ArrayLike, v: Any) -> Floats:
        """J v of S vectors [S, P] of parameters at n points: [S, n, C]."""
        changes = self._by_blocks(
            partial(_push, v=jnp.asarray(v, self.dtype)), X, self._row_size(X)
        )
        return np.moveaxis(changes, -1, 0)

    def pull(self, X: ArrayLike, u: Floats) -> Floats:
        """J^T u of S vectors [S, n, C] of outputs at n points: [S, P]."""
        total = jnp.zeros((len(u), self.size), self.dtype)
        start = 0
        for x, count in self._blocks(X, self._row_size(X)):
            part = np.zeros((len(u), len(x), u.shape[-1]), self.dtype)
            part[:, :count] = u[:, start : start + count]
            total = total + _pull(self, x, jnp.asarray(part))
            start += count
        return np.asarray(total)

    def kernel(
        self, X1: ArrayLike, X2: ArrayLike | None = None, *, progress: Progress | None = None
    ) -> Floats:
        """J(X1) J(X2)^T, [n1, C, n2, C]; without X2, symmetric to the last bit."""
        X1 = np.asarray(X1)
        outputs, columns = self.n_outputs(X1), len(X1 if X2 is None else np.asarray(X2))
        kernel = np.empty((len(X1), outputs, columns, outputs), self.dtype)
        for i, j, block in self.kernel_blocks(X1, X2, progress=progress):
            rows, others = slice(i, i + len(block)), slice(j, j + block.shape[2])
            kernel[rows, :, others] = block
            if X2 is None:
                kernel[others, :, rows] = block.transpose(2, 3, 0, 1)
        return kernel

    def kernel_blocks(
        self, X1: ArrayLike, X2: ArrayLike | None = None, *, progress: Progress | None = None
    ) -> Iterator[tuple[int, int, Floats]]:
        """The same in blocks [b1, C, b2, C], each with its first row and column; of one triangle.

        Without X2 those on the diagonal are symmetric.
        """
        X1, i = np.asarray(X1), 0
        # Blocks of the kernel are held as well, and symmetric ones twice.
        kernel_numbers = _BLOCK_BYTES / (4 * jnp.dtype(self.dtype).itemsize)
        size = self._row_size(X1), max(1, int(kernel_numbers**0.5) // self.n_outputs(X1))
        for x1, n1 in self._blocks(X1, *size):
            left, j = _rows(self, x1), 0
            for x2, n2 in self._blocks(X1 if X2 is None else X2, *size):
                same = X2 is None and i == j
                if X2 is not None or j >= i:
                    block = _kernel(left, left if same else _rows(self, x2))[:n1, :, :n2]
                    yield i, j, (block + block.transpose(2, 3, 0, 1)) / 2 if same else block
                j += n2
            i += n1
            if progress is not None:
                progress(i, len(X1))

    def own_kernel(self, X: ArrayLike) -> Floats:
        """Kernel of each point with itself, [n, C, C]."""
        return self._by_blocks(_own_kernel, X, self._row_size(X))

    def _row_size(self, X: ArrayLike) -> int:
        """Numbers that `Rows` hold for an output at a point."""
        x = jax.ShapeDtypeStruct((1, *np.shape(X)[1:]), self.dtype)
        rows = jax.eval_shape(_rows, self, x)
        return sum(leaf.size for leaf in jax.tree.leaves(rows)) // self.n_outputs(X) + 1

    def _blocks(
        self, X: ArrayLike, numbers: int, most: int | None = None
    ) -> list[tuple[Array, int]]:
        """Points in blocks of one shape, filled up with the last point; and how many are meant.

        Each point takes so many `numbers` for each output; at most so many points.
        """
        X = np.asarray(X)
        outputs = self.n_outputs(X)
        point_bytes = outputs * numbers * jnp.dtype(self.dtype).itemsize
        most = int(np.clip(_BLOCK_BYTES // point_bytes, 1, len(X) if most is None else most))
        size = -(-len(X) // -(-len(X) // most))  # all alike: what fills up is computed too
        blocks = []
        for start in range(0, len(X), size):
            part = X[start : start + size]
            fill = np.repeat(part[-1:], size - len(part), axis=0)
            x = jnp.asarray(np.concatenate([part, fill]), self.dtype)
            blocks.append((x, len(part)))
        return blocks

    def _by_blocks(self, function: Callable[..., Array], X: ArrayLike, numbers: int) -> Floats:
        blocks = self._blocks(X, numbers)
        return np.concatenate([np.asarray(function(self, x))[:count] for x, count in blocks])


_PARTS = ("params", "rest")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TangentProducts:
    """J J^T by products with J, whose rows are formed anew, block by block, in each.

    Attributes
    ----------
    tangent : Tangent
        Whose J.
    blocks : Array of shape [k, b, ...]
        Points in blocks of b, filled up.
    variances : Array of shape [n, C]
        The diagonal.

    Examples
    --------
    >>> import numpy as np
    >>> from flax import nnx
    >>> from ntk_uq import Linearized
    >>> tangent = Linearized(nnx.Linear(2, 3, rngs=nnx.Rngs(0))).tangent
    >>> x = np.ones((5, 2))
    >>> theta = TangentProducts.of(tangent, x)
    >>> v = np.ones((5, 3, 1), np.float32)
    >>> expected = np.einsum("icjd,jds->ics", tangent.kernel(x), v)
    >>> np.allclose(theta.product(v), expected)
    True
    """

    tangent: Tangent
    blocks: Array
    variances: Array

    @classmethod
    def of(cls, tangent: Tangent, X: ArrayLike) -> "TangentProducts":
        """At n points."""
        blocks = jnp.stack([x for x, _ in tangent._blocks(X, tangent._row_size(X))])
        variances = np.einsum("icc->ic", tangent.own_kernel(X))
        return cls(tangent, blocks, jnp.asarray(variances))

    def product(self, v: Array) -> Array:
        """Theta v for S vectors, [n, C, S]."""
        (k, b), (n, outputs, draws) = self.blocks.shape[:2], v.shape
        filled = jnp.pad(v, ((0, k * b - n), (0, 0), (0, 0))).reshape(k, b, outputs, draws)

        def add(total: Array, block: tuple[Array, Array]) -> tuple[Array, None]:
            x, u = block
            return total + pull_of(_rows(self.tangent, x), jnp.moveaxis(u, -1, 0)), None

        zero = jnp.zeros((draws, self.tangent.size), v.dtype)
        pulled, _ = jax.lax.scan(add, zero, (self.blocks, filled))
        pushed = jax.lax.map(lambda x: push_of(_rows(self.tangent, x), pulled), self.blocks)
        return pushed.transpose(0, 2, 3, 1).reshape(k * b, outputs, draws)[:n]

    def diagonal(self) -> Array:
        """Diagonal, [n, C]."""
        return self.variances


@jax.jit
def _outputs(tangent: Tangent, x: Array) -> Array:
    return tangent.outputs(tangent.params, x)


@jax.jit
def _jacobian(tangent: Tangent, x: Array) -> Array:
    return jacobian_of(_rows(tangent, x))


@jax.jit
def _push(tangent: Tangent, x: Array, v: Array) -> Array:
    return jnp.moveaxis(push_of(_rows(tangent, x), v), 0, -1)


@jax.jit
def _pull(tangent: Tangent, x: Array, u: Array) -> Array:
    return pull_of(_rows(tangent, x), u)


@jax.jit
def _rows(tangent: Tangent, x: Array) -> Any:
    leaves, structure = jax.tree.flatten(tangent.params)

    def outputs(leaves: list[Array], x: Array) -> Array:
        return tangent.outputs(jax.tree.unflatten(structure, leaves), x)

    return rows_of(outputs, leaves, x)


def _kernel(left: Any, right: Any) -> Floats:
    if jax.default_backend() == "cpu":
        left, right = jax.tree.map(np.asarray, (left, right))
        return kernel_of(left, right, np)
    return np.asarray(_kernel_on_device(left, right))


_kernel_on_device = jax.jit(kernel_of)


@jax.jit
def _own_kernel(tangent: Tangent, x: Array) -> Array:
    rows = _rows(tangent, x)
    one = jax.vmap(lambda r: kernel_of(r, r)[0, :, 0])
    return one(jax.tree.map(lambda leaf: leaf[:, None], rows))
