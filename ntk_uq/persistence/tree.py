"""The tree of values: JSON and a list of arrays."""

import functools
import math
import types
import zipfile
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path, PurePath
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn import config_context
from sklearn.base import BaseEstimator

from ntk_uq.networks.architecture import BaseArchitecture
from ntk_uq.networks.kernel_function import KernelFunction
from ntk_uq.networks.linearized import Linearized
from ntk_uq.persistence.archive import array_name, stored
from ntk_uq.persistence.classes import CLASSES, class_named, name_of
from ntk_uq.persistence.earlier import held_by_fitted
from ntk_uq.persistence.supplied import SUPPLIED, fingerprint, is_supplied

__all__ = ["Reader", "Writer"]


# What predicts from training points, and why.
_KERNELS = "is made of kernels with its training points"
_OF_POINTS = {
    "FittedInfiniteEnsemble": _KERNELS,
    "FittedProcess": _KERNELS,
    "FittedLinearized": "is made of derivatives at its training points",
    "SampledPosterior": "holds draws of the posterior at its training points",
    "FittedNetworkLaplace": "holds the training points that its posterior is of",
}


# What the card holds, from which `files.read` takes it.
_IN_CARD = ("_held_out",)


class Writer:
    """Values to JSON, and arrays to a list."""

    def __init__(self, data: bool = True) -> None:
        self.data = data  # whether what belongs to training points is held
        self.arrays: list[np.ndarray] = []
        self.architecture: Any = None  # what identifies one that is left out
        self.left_out_optimizer = False
        self._numbers: dict[int, int] = {}  # of arrays, by identity
        self._kept: list[Any] = []  # so that identities stay

    def encode(self, value: Any, where: str) -> Any:
        """JSON of a value; `where` it is found, for errors."""
        if value is None or type(value) in (bool, int, str):
            return value
        if type(value) is float:
            return value if math.isfinite(value) else {"float": repr(value)}
        if type(value) is list:
            return [self.encode(v, f"{where}[{i}]") for i, v in enumerate(value)]
        if type(value) is tuple:
            return {"tuple": [self.encode(v, f"{where}[{i}]") for i, v in enumerate(value)]}
        if isinstance(value, np.ndarray | np.generic | jax.Array):
            return self._encode_array(value, where)
        if is_supplied(value):
            return {SUPPLIED: "architecture"}
        name = name_of(type(value))
        if name is not None:
            return {"object": name, **self._encode_object(value, where)}
        if isinstance(value, Mapping):
            pairs = value.items()
            return {"dict": [[self.encode(k, where), self.encode(v, f"{where}[{k!r}]")]
                             for k, v in pairs]}  # fmt: skip
        if isinstance(value, slice):
            return {"slice": self.encode([value.start, value.stop, value.step], where)}
        if isinstance(value, np.dtype) and not value.hasobject:
            return {"dtype": value.str}
        if isinstance(value, type) and issubclass(value, np.generic):
            return {"scalar type": np.dtype(value).str}
        if isinstance(value, PurePath):
            return {"path": str(value)}
        if isinstance(value, np.random.RandomState):
            return {"random state": self.encode(value.get_state(), where)}
        raise ValueError(
            f"{where} is {_kind(value)}, which a file of data cannot hold. {_advice(value)}"
        )

    def _encode_array(self, value: Any, where: str) -> Any:
        if isinstance(value, np.generic):
            return {"scalar": self._add(np.asarray(value), where)}
        if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            data = np.asarray(jax.random.key_data(value))
            return {"key": [str(jax.random.key_impl(value)), self._add(data, where)]}
        array = np.asarray(value)
        if array.dtype == object:
            values = [self.encode(v, where) for v in array.ravel().tolist()]
            return {"objects": [list(array.shape), values]}
        number = self._numbers.get(id(value))
        if number is None:
            number = self._numbers[id(value)] = self._add(array, where)
            self._kept.append(value)
        return {"array": number}

    def _add(self, array: np.ndarray, where: str) -> int:
        if array.dtype.kind not in "biufcSUmM":
            raise ValueError(f"{where} is an array of {array.dtype}, which a file cannot hold.")
        self.arrays.append(array)
        return len(self.arrays) - 1

    def _encode_object(self, value: Any, where: str) -> dict[str, Any]:
        if not self.data and type(value).__name__ in _OF_POINTS:
            raise ValueError(
                f"{where} {_OF_POINTS[type(value).__name__]}, so data=False would leave nothing to "
                "predict from. Leave it out, or train a finite ensemble, EnsembleClassifier or "
                "EnsembleRegressor, whose networks predict by themselves."
            )
        if isinstance(value, BaseEstimator):
            params = value.get_params(deep=False)
            attributes = {
                name: attribute
                for name, attribute in vars(value).items()
                if name not in (*params, *_IN_CARD) and not _is_cached(value, name)
            }
            self._leave_out(value, params, where)
        elif is_dataclass(value):
            params, attributes = {f.name: getattr(value, f.name) for f in fields(value)}, {}
            if "out_features" in params:  # trained networks, whose parameters are a module
                params["params"] = jax.tree.leaves(params["params"])
                params["mode"] = params["mode"] if self.data else None
        else:
            params, attributes = value._asdict(), {}
        encoded = {"parameters": self._encode_names(params, where)}
        routing = attributes.pop("_metadata_request", None)
        if routing is not None:
            encoded["requests"] = {
                method: dict(requests.requests)
                for method, requests in vars(routing).items()
                if getattr(requests, "requests", None)
            }
        if attributes:
            encoded["attributes"] = self._encode_names(attributes, where)
        return encoded

    def _encode_names(self, values: Mapping[str, Any], where: str) -> dict[str, Any]:
        return {name: self.encode(value, f"{where}.{name}") for name, value in values.items()}

    def _leave_out(self, estimator: Any, params: dict[str, Any], where: str) -> None:
        if params.get("memory") is not None and hasattr(estimator, "steps"):
            raise ValueError(
                f"{where} has memory={params['memory']!r}, a cache that may hold code. Set "
                "memory=None before it is saved."
            )
        if params.get("optimizer") is not None:
            params["optimizer"] = None
            self.left_out_optimizer = True
        if params.get("kernel") is not None:  # a function: known again by the architecture given
            params["kernel"] = KernelFunction(params["kernel"])
        network = getattr(estimator, "architecture_", None)
        if is_supplied(network):
            shape, outputs = estimator._point_shape, len(estimator._output_names)
            prints = fingerprint(network, shape, outputs)
            known = {"shape": tuple(shape), "outputs": outputs, "prints": prints}
            if isinstance(network, Linearized):
                known["arrays"] = network.arrays
            self.architecture = self.encode(known, where)


class Reader:
    """JSON and the arrays of an archive to values."""

    def __init__(self, archive: zipfile.ZipFile, architecture: BaseArchitecture | None):
        self._archive = archive
        self.architecture = architecture  # in the place of one that was left out
        self._arrays: dict[int, np.ndarray] = {}

    def decode(self, node: Any) -> Any:
        """The value that `Writer.encode` made the JSON of."""
        if isinstance(node, list):
            return [self.decode(value) for value in node]
        if not isinstance(node, dict):
            return node
        if "object" in node:
            return self._object(class_named(node["object"]), node)
        ((kind, value),) = node.items()
        match kind:
            case "float":
                return {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}[value]
            case "tuple":
                return tuple(self.decode(value))
            case "dict":
                return {self.decode(k): self.decode(v) for k, v in value}
            case "array":
                return self._array(value)
            case "scalar":
                return self._array(value)[()]
            case "objects":
                shape, values = value
                array = np.empty(len(values), object)
                array[:] = self.decode(values)
                return array.reshape(shape)
            case "key":
                implementation, number = value
                return jax.random.wrap_key_data(
                    jnp.asarray(self._array(number)), impl=implementation
                )
            case "slice":
                return slice(*self.decode(value))
            case "dtype":
                return np.dtype(value)
            case "scalar type":
                return np.dtype(value).type
            case "path":
                return Path(value)
            case "random state":
                state = np.random.RandomState()
                state.set_state(self.decode(value))
                return state
            case "supplied":
                if self.architecture is None:
                    raise ValueError("it has an architecture that nothing identifies")
                return self.architecture
            case _:
                raise ValueError(f"unknown kind of value {kind!r}")

    def _array(self, number: int) -> np.ndarray:
        if number not in self._arrays:
            with stored(self._archive, array_name(number)) as entry:
                array = np.lib.format.read_array(entry, allow_pickle=False)
            self._arrays[number] = array
        return self._arrays[number]

    def _object(self, cls: Any, node: dict[str, Any]) -> Any:
        params = {name: self.decode(value) for name, value in node["parameters"].items()}
        if issubclass(cls, BaseEstimator) and "steps" in params and params["memory"] is not None:
            raise ValueError("a Pipeline with a cache")
        if "out_features" in params:
            params["params"] = _networks(**params)
        if isinstance(params.get("kernel"), KernelFunction):
            params["kernel"] = params["kernel"].kernel
        value = cls(**params)
        attributes = node.get("attributes", {})
        vars_of = {name: self.decode(attribute) for name, attribute in attributes.items()}
        if vars_of:
            vars(value).update(held_by_fitted(node["object"], params, vars_of))
        with config_context(enable_metadata_routing=True):
            for method, requests in node.get("requests", {}).items():
                getattr(value, f"set_{method}_request")(**requests)
        return value


def _networks(
    architecture: BaseArchitecture, params: Any, in_features: Any, out_features: int, **_: Any
) -> Any:
    """Trained networks from their parameters alone; the architecture knows their structure."""
    if getattr(architecture, "depth", 0) > len(params):
        raise ValueError("a network with fewer parameters than layers")
    like = jax.eval_shape(
        lambda key: architecture.init(key, in_features, out_features), jax.random.key(0)
    )
    shapes = [leaf.shape for leaf in jax.tree.leaves(like)]
    if [leaf.shape[1:] for leaf in params] != shapes:
        raise ValueError("networks of another architecture")
    return jax.tree.unflatten(jax.tree.structure(like), params)


def _is_cached(value: Any, name: str) -> bool:
    """Whether an attribute is made of the others when it is asked for."""
    return isinstance(getattr(type(value), name, None), functools.cached_property)


def _kind(value: Any) -> str:
    if isinstance(value, types.FunctionType | types.BuiltinFunctionType | types.MethodType):
        return f"the function {value.__name__}"
    return f"an object of the type {type(value).__name__}"


def _advice(value: Any) -> str:
    if isinstance(value, BaseEstimator):
        known = [name for module, names in CLASSES.items() if "sklearn" in module for name in names]
        return f"Steps that can be saved: {', '.join(known)}."
    return "Give a number, a string or an array in its place, or keep this model with pickle."
