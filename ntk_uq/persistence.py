r"""Fitted estimators in files: data alone, so that opening one runs no code.

A file is a ZIP archive of NumPy arrays (``arrays/0.npy``, ...) and ``ntk_uq.json``, a tree of
typed values that names classes of a closed list. Its last bytes are the SHA-256 sum of all before
them: a file that was cut short or changed is refused before anything in it is read.
"""

import functools
import hashlib
import importlib
import json
import math
import os
import struct
import types
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path, PurePath
from typing import IO, Any, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
from sklearn import config_context
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from ntk_uq import likelihoods, networks
from ntk_uq._common.files import write_atomically
from ntk_uq._common.rules import own_rules
from ntk_uq._common.versions import versions
from ntk_uq.ensemble.members import in_features
from ntk_uq.networks.architecture import BaseArchitecture

__all__ = ["load", "save"]

# Changes when a file of this version could be misread by the one before.
FORMAT_VERSION = 1

_TREE = "ntk_uq.json"
# At the end of a file, as the comment of the archive, before the checksum in hexadecimal digits.
_SEAL = b"ntk_uq model, sha256 "
_SUM_LENGTH = 64
_BLOCK = 2**20
# What reading a file can raise whose checksum is right and whose content is not ours: one that
# somebody made.
_MALFORMED = (
    ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError, OSError,
    NotImplementedError, RuntimeError, OverflowError, MemoryError, RecursionError, ImportError,
    struct.error, zlib.error, zipfile.BadZipFile,
)  # fmt: skip


def _held_as_data(contents: types.ModuleType) -> tuple[str, ...]:
    """Dataclasses of a contents page, but those whose fields are functions."""
    return tuple(
        name
        for name in contents.__all__
        if is_dataclass(cls := getattr(contents, name)) and not getattr(cls, "holds_functions", 0)
    )


# All classes that a file may name. Building one assigns or checks values and does nothing else.
_CLASSES = {
    "ntk_uq.architectures": _held_as_data(networks),
    "ntk_uq.likelihoods": _held_as_data(likelihoods),
    "ntk_uq.analytic": (
        "Discrepancy", "ExactPredictor", "GaussianPredictor", "_PerOutput", "_Shared",
    ),
    "ntk_uq.ensemble": ("TrainedEnsemble",),
    "ntk_uq.bayes": (
        "Diagnostics", "GaussianProcessPrior", "NetworkLaplace", "NetworkPrior", "PosteriorDraws",
    ),
    "ntk_uq.selection": ("RegCurve",),
    "ntk_uq.calibration": ("TemperatureFit", "TemperatureScaled"),
    "ntk_uq.tables": ("TableModel",),
    "ntk_uq.estimators": (
        "NTKClassifier", "EnsembleClassifier", "BayesianClassifier",
        "NTKRegressor", "EnsembleRegressor", "BayesianRegressor",
    ),
    "sklearn.compose": ("ColumnTransformer",),
    "sklearn.frozen": ("FrozenEstimator",),
    "sklearn.impute": ("MissingIndicator", "SimpleImputer"),
    "sklearn.pipeline": ("Pipeline",),
    "sklearn.preprocessing": (
        "MaxAbsScaler", "MinMaxScaler", "OneHotEncoder", "OrdinalEncoder", "RobustScaler",
        "StandardScaler",
    ),
}  # fmt: skip

# Where a class lives that its package does not show, or no longer; names in files stay.
_HOMES = {
    "ntk_uq.analytic._PerOutput": "ntk_uq.analytic.resolvent",
    "ntk_uq.analytic._Shared": "ntk_uq.analytic.resolvent",
    **{f"ntk_uq.architectures.{name}": "ntk_uq.networks" for name in _held_as_data(networks)},
}

# In the place of an architecture that a file cannot hold.
_SUPPLIED = "supplied"
# Outputs and kernels of an architecture of the user's are recognised to this: rounding differs
# between machines.
_FINGERPRINT_TOLERANCE = 1e-4


def save(estimator: Any, path: str | os.PathLike) -> None:
    """Save a fitted estimator to a file.

    Parameters
    ----------
    estimator : estimator
        Any estimator of this package, fitted; a scikit-learn ``Pipeline`` that ends in one, whose
        steps are ``ColumnTransformer``, ``SimpleImputer``, ``OneHotEncoder``, ``OrdinalEncoder``
        or one of the scalers; or a `tables.TableModel`.
    path : path
        The file, ``model.ntk`` for example. It is written under another name and then renamed: a
        file that was there stays as it was until the new one is whole.

    Raises
    ------
    ValueError
        If the estimator is not fitted, or holds something that is no data, such as a function; the
        message says what.
    OSError
        If the file cannot be written.

    Warns
    -----
    UserWarning
        If the estimator has an `optimizer`: it is left out, and must be set again before another
        `fit`. An architecture of your own is left out too, and given to `load`.

    Examples
    --------
    >>> import tempfile
    >>> import ntk_uq as nuq
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = nuq.NTKClassifier(reg=1.0).fit(X, y)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     nuq.save(clf, f"{folder}/iris.ntk")
    ...     again = nuq.load(f"{folder}/iris.ntk")
    >>> bool((again.predict_proba(X) == clf.predict_proba(X)).all())
    True
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: give the name of a file in it.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"The folder {path.parent} does not exist: create it first.")
    writer = _Writer()
    model = writer.encode(_check_saved(estimator), type(estimator).__name__)
    if writer.left_out_optimizer:
        warnings.warn(
            "The optimizer is made of functions and is left out of the file. Predictions need "
            "none; before another fit of what is loaded, set it: set_params(optimizer=...).",
            UserWarning,
            stacklevel=2,
        )
    tree = {
        "format": "ntk_uq model",
        "version": FORMAT_VERSION,
        "written by": versions("jax", "numpy", "scikit-learn"),
        "architecture": writer.architecture,
        "model": model,
    }
    write_atomically(path, lambda file: _write(file, tree, writer.arrays))


def load(path: str | os.PathLike, *, architecture: BaseArchitecture | None = None) -> Any:
    """Load what `save` wrote.

    No code of the file is run, whoever wrote it: it can only fill in the attributes of classes that
    this package knows.

    Parameters
    ----------
    path : path
        The file.
    architecture : Architecture, optional
        The network, where the estimator was given one of your own: files do not hold functions. It
        is refused if its outputs are not those of the one that was used to fit.

    Returns
    -------
    estimator
        Its predictions are those of the estimator that was saved, to the last bit, on the same
        machine and versions of packages.

    Raises
    ------
    ValueError
        If the file is damaged, or none of `save`, or of a newer format; or needs an architecture.
    OSError
        If there is no such file, or it cannot be read.

    Warns
    -----
    UserWarning
        If the file was written with another minor version of scikit-learn, which makes no promise
        for attributes of its own steps.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import ntk_uq as nuq
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "model.ntk")
    ...     nuq.save(nuq.NTKClassifier(reg=1.0).fit([[0.0], [1.0]], ["no", "yes"]), path)
    ...     again = nuq.load(path)
    >>> again.predict([[2.0]])
    array(['yes'], dtype='<U3')
    """
    path = Path(path)
    with open(path, "rb") as file:
        _check_whole(file, path)
        try:
            with zipfile.ZipFile(file) as archive:
                tree = json.loads(_stored(archive, _TREE).read())
                if tree["version"] > FORMAT_VERSION:
                    raise _RefusedError(
                        f"{path} has the format {tree['version']}, of ntk_uq "
                        f"{tree['written by']['ntk_uq']}; this is {versions()['ntk_uq']}, which "
                        f"reads up to {FORMAT_VERSION}. Install a newer ntk_uq."
                    )
                _check_architecture(tree["architecture"], architecture, path)
                reader = _Reader(archive, architecture)
                if tree["architecture"] is not None:
                    recorded = reader.decode(tree["architecture"])
                    _check_fingerprint(recorded, architecture, path)
                model = reader.decode(tree["model"])
                _warn_of_versions(tree["written by"], path)
                return _check_loaded(model)
        except _RefusedError as refused:
            raise ValueError(str(refused)) from None
        except _MALFORMED as error:
            raise ValueError(
                f"{path} holds no model that this ntk_uq {versions()['ntk_uq']} can read "
                f"({type(error).__name__}: {error}). It was not written by nuq.save, or by a "
                "newer version."
            ) from error


class _RefusedError(Exception):
    """A file is refused, and the message says all."""


# The file: sealed archive.


def _write(file: IO[bytes], tree: Any, arrays: list[np.ndarray]) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(_TREE, json.dumps(tree, allow_nan=False))
        for number, array in enumerate(arrays):
            with archive.open(_array_name(number), "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)
        archive.comment = _SEAL + b"0" * _SUM_LENGTH
    file.seek(-_SUM_LENGTH, os.SEEK_END)
    digest = _digest(file, file.tell())
    file.seek(-_SUM_LENGTH, os.SEEK_END)
    file.write(digest)


def _check_whole(file: IO[bytes], path: Path) -> None:
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if size == 0:
        raise ValueError(f"{path} is empty.")
    start = file.read(30 + len(_TREE))  # an entry's name follows 30 bytes of header
    if not (start.startswith(b"PK\x03\x04") and start.endswith(_TREE.encode())):
        raise ValueError(f"{path} is no file of nuq.save.")
    file.seek(max(size - len(_SEAL) - _SUM_LENGTH, 0))
    seal = file.read()
    if seal != _SEAL + _digest(file, size - _SUM_LENGTH):
        raise ValueError(
            f"{path} is damaged: it was cut short or changed after nuq.save wrote it. Copy it "
            "again from where it was made, or fit again."
        )


def _digest(file: IO[bytes], size: int) -> bytes:
    """SHA-256 of the first bytes, in hexadecimal digits."""
    sha = hashlib.sha256()
    file.seek(0)
    while size > 0:
        block = file.read(min(_BLOCK, size))
        sha.update(block)
        size -= len(block)
    return sha.hexdigest().encode()


def _array_name(number: int) -> str:
    return f"arrays/{number}.npy"


def _stored(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    """An entry that takes no more memory than the file is long."""
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed")
    return archive.open(name)


def _warn_of_versions(written_by: Mapping[str, str], path: Path) -> None:
    there, here = written_by["scikit-learn"], versions("scikit-learn")["scikit-learn"]
    if there.split(".")[:2] != here.split(".")[:2]:
        warnings.warn(
            f"{path} was written with scikit-learn {there}; this is {here}, which may understand "
            "its steps in another way. Compare a few predictions, or fit again.",
            UserWarning,
            stacklevel=3,
        )


# What may be saved at all.


def _check_saved(estimator: Any) -> Any:
    final = _final_step(estimator)
    known = _name_of(type(final)) is not None and isinstance(final, BaseEstimator)
    if not (known and type(final).__module__.startswith("ntk_uq.")):
        raise ValueError(
            f"nuq.save takes a fitted estimator of ntk_uq, or a Pipeline that ends in one; got "
            f"{type(final).__name__}."
        )
    if isinstance(estimator, BaseEstimator):
        check_is_fitted(estimator)
    return estimator


def _check_loaded(model: Any) -> Any:
    """The same for what a file holds."""
    try:
        return _check_saved(model)
    except ValueError as error:
        raise ValueError(f"it holds {type(model).__name__}") from error


def _final_step(model: Any) -> Any:
    if _name_of(type(model)) == "ntk_uq.tables.TableModel":
        model = model.pipeline
    steps = getattr(model, "steps", None)
    return steps[-1][1] if isinstance(steps, list) and steps else model


def _name_of(cls: type) -> str | None:
    """The name of a known class in a file; scikit-learn's are defined in private modules."""
    package = cls.__module__.partition(".")[0]
    for module, names in _CLASSES.items():
        if module.partition(".")[0] == package and cls.__name__ in names:
            name = f"{module}.{cls.__name__}"
            return name if _class(name) is cls else None
    return None


def _class(name: str) -> type:
    module, _, attribute = name.rpartition(".")
    if attribute not in _CLASSES.get(module, ()):
        raise ValueError(f"unknown class {name}")
    return getattr(importlib.import_module(_HOMES.get(name, module)), attribute)


# Architectures of the user's, which files do not hold.


def _is_supplied(value: Any) -> TypeGuard[BaseArchitecture]:
    """Whether a file leaves an architecture out, to be given to `load`: one of the user's own."""
    if not isinstance(value, BaseArchitecture) or _name_of(type(value)) is not None:
        return False
    shipped = type(value).__module__.partition(".")[0] == "ntk_uq"
    if shipped and not value.holds_functions:
        raise ValueError(
            f"{type(value).__name__} is an architecture of ntk_uq that files do not know: "
            "ntk_uq.networks must show it."
        )
    return True


def _fingerprint(architecture: BaseArchitecture, shape: Any, outputs: int) -> dict[str, Any]:
    """What an architecture computes at a few points: it has no other identity."""
    points = np.sin(1.0 + np.arange(3 * math.prod(shape))).reshape(3, *shape)
    with own_rules(), jax.enable_x64(False):
        x = jnp.asarray(points, jnp.float32)
        network = architecture.init(jax.random.key(0), in_features(x), outputs)
        prints = {"network": np.asarray(architecture.apply(network, x))}
    try:
        prints.update(architecture.kernels(points)._asdict())
    except ValueError:  # it has none
        pass
    return prints


def _check_architecture(recorded: Any, given: Any, path: Path) -> None:
    if recorded is not None and given is None:
        raise _RefusedError(
            f"{path} was fitted with an architecture of its user's, which no file can hold: give "
            "the same one, nuq.load(path, architecture=...)."
        )
    if recorded is None and given is not None:
        raise _RefusedError(f"{path} holds its architecture: leave out architecture={given!r}.")
    if not (given is None or isinstance(given, BaseArchitecture)):
        raise _RefusedError(
            "architecture takes an ntk_uq architecture, nuq.Architecture(...) for example; got "
            f"{given!r}."
        )


def _check_fingerprint(recorded: Any, given: Any, path: Path) -> None:
    tolerance = _FINGERPRINT_TOLERANCE
    there = recorded["prints"]
    here = _fingerprint(given, recorded["shape"], recorded["outputs"])
    different = [
        name
        for name in there
        if name not in here
        or here[name].shape != there[name].shape
        or not np.allclose(here[name], there[name], rtol=tolerance, atol=tolerance)
    ]
    if different:
        raise _RefusedError(
            f"The architecture that is given is not the one that {path} was fitted with: its "
            f"{different[0]} differs at the same points."
        )


# The tree of values.


class _Writer:
    """Values to JSON, and arrays to a list."""

    def __init__(self) -> None:
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
        if _is_supplied(value):
            return {_SUPPLIED: "architecture"}
        name = _name_of(type(value))
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
        if isinstance(value, BaseEstimator):
            params = value.get_params(deep=False)
            attributes = {
                name: attribute
                for name, attribute in vars(value).items()
                if name not in params and not _is_cached(value, name)
            }
            self._leave_out(value, params, where)
        elif is_dataclass(value):
            params, attributes = {f.name: getattr(value, f.name) for f in fields(value)}, {}
            if "out_features" in params:  # trained networks, whose parameters are a module
                params["params"] = jax.tree.leaves(params["params"])
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
        network = getattr(estimator, "architecture_", None)
        if _is_supplied(network):
            shape, outputs = estimator._point_shape, len(estimator._output_names)
            prints = _fingerprint(network, shape, outputs)
            self.architecture = self.encode(
                {"shape": tuple(shape), "outputs": outputs, "prints": prints}, where
            )


class _Reader:
    """JSON and the arrays of an archive to values."""

    def __init__(self, archive: zipfile.ZipFile, architecture: BaseArchitecture | None):
        self._archive = archive
        self._architecture = architecture
        self._arrays: dict[int, np.ndarray] = {}

    def decode(self, node: Any) -> Any:
        """The value that `_Writer.encode` made the JSON of."""
        if isinstance(node, list):
            return [self.decode(value) for value in node]
        if not isinstance(node, dict):
            return node
        if "object" in node:
            return self._object(_class(node["object"]), node)
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
                if self._architecture is None:
                    raise ValueError("it has an architecture that nothing identifies")
                return self._architecture
            case _:
                raise ValueError(f"unknown kind of value {kind!r}")

    def _array(self, number: int) -> np.ndarray:
        if number not in self._arrays:
            with _stored(self._archive, _array_name(number)) as entry:
                array = np.lib.format.read_array(entry, allow_pickle=False)
            self._arrays[number] = array
        return self._arrays[number]

    def _object(self, cls: Any, node: dict[str, Any]) -> Any:
        params = {name: self.decode(value) for name, value in node["parameters"].items()}
        if issubclass(cls, BaseEstimator) and "steps" in params and params["memory"] is not None:
            raise ValueError("a Pipeline with a cache")
        if "out_features" in params:
            params["params"] = _networks(**params)
        value = cls(**params)
        attributes = node.get("attributes", {})
        vars_of = {name: self.decode(attribute) for name, attribute in attributes.items()}
        if vars_of:
            vars(value).update(vars_of)
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
        known = [
            name for module, names in _CLASSES.items() if "sklearn" in module for name in names
        ]
        return f"Steps that can be saved: {', '.join(known)}."
    return "Give a number, a string or an array in its place, or keep this model with pickle."
