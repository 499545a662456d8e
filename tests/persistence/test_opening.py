"""Files that are damaged, foreign or forged are refused, and run nothing."""

import io
import json
import os
import pickle
import warnings
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from saved_models import NET, archive, assert_same_predictions, entries_of, fit

import ntk_uq as nuq


def test_truncated(whole, refuses):
    for length in [*range(0, 400, 7), *range(400, len(whole), 101), len(whole) - 1]:
        refuses(whole[:length], "is empty|is no file of|is damaged")


def test_any_changed_byte(whole, refuses):
    for place in [*range(0, 64), *range(64, len(whole), 53), *range(len(whole) - 90, len(whole))]:
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        refuses(bytes(changed), "is no file of|is damaged")


def test_appended_and_swapped(whole, refuses):
    refuses(whole + b"\0", "is damaged")
    refuses(whole + whole, "is damaged")
    refuses(b"\0" + whole, "is no file of")


def altered(whole, **changes):
    entries = entries_of(whole)
    tree = json.loads(entries["ntk_uq.json"])
    return archive({**entries, "ntk_uq.json": json.dumps({**tree, **changes})})


def test_what_the_forger_makes_is_read_if_it_is_right(whole, tmp_path, fitted):
    """Else the refusals below would show nothing."""
    (tmp_path / "model.ntk").write_bytes(altered(whole))
    assert_same_predictions(fitted, nuq.load(tmp_path / "model.ntk"))


def test_newer_format(whole, refuses):
    refuses(
        altered(whole, version=2, **{"written by": {"ntk_uq": "9.9"}}),
        r"format 2, of ntk_uq 9\.9; this is .* reads up to 1. Install a newer",
    )


def test_another_scikit_learn_warns(whole, tmp_path):
    path = tmp_path / "model.ntk"
    path.write_bytes(altered(whole, **{"written by": {"scikit-learn": "1.2.0"}}))
    with pytest.warns(UserWarning, match=r"written with scikit-learn 1\.2\.0"):
        nuq.load(path)


class Exploit:
    def __reduce__(self):
        return os.mkdir, ("exploited",)


PICKLE = pickle.dumps(Exploit())
_buffer = io.BytesIO()
np.save(_buffer, np.array([Exploit()], object), allow_pickle=True)
PICKLED_ARRAY = _buffer.getvalue()

FOREIGN = {
    "text": b"a,b\n1,2\n",
    "pickle": PICKLE,
    "html": b"<html></html>" * 10,
    "zip": (lambda: archive({"other.json": "{}"}))(),
    "npz": PICKLED_ARRAY,
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_foreign_files(content, refuses):
    refuses(content, "is no file of nuq.save")


def estimator_tree(**parameters):
    return {"object": "ntk_uq.estimators.NTKClassifier", "parameters": parameters}


FORGED_MODELS = {
    "pickled array": {"array": 99},
    "no such array": {"array": 12345},
    "array by name": {"array": "../../etc/passwd"},
    "unknown class": {"object": "os.system", "parameters": {"command": "true"}},
    "class of this package": {"object": "ntk_uq.estimators._NTK", "parameters": {}},
    "function of this package": {"object": "ntk_uq.persistence.load", "parameters": {"path": "x"}},
    "class by another way": {"object": "ntk_uq.estimators.os.system", "parameters": {}},
    "unknown kind": {"pickle": "gASV"},
    "two kinds": {"tuple": [], "list": []},
    "empty kind": {},
    "number": 3,
    "nothing": None,
    "not an estimator": {"object": "ntk_uq.architectures.MLP", "parameters": {"width": 3}},
    "refused by the class": {"object": "ntk_uq.architectures.MLP", "parameters": {"width": -3}},
    "unknown parameter": estimator_tree(colour="red"),
    "not fitted": estimator_tree(),
    "object type": {"dtype": "evil"},
    "bad float": {"float": "one"},
    "deep": None,  # replaced below
    "unidentified architecture": estimator_tree(architecture={"supplied": "architecture"}),
    "cache": {
        "object": "sklearn.pipeline.Pipeline",
        "parameters": {"steps": [], "memory": "/tmp", "transform_input": None, "verbose": False},
    },
}


@pytest.mark.parametrize("name", FORGED_MODELS)
def test_forged_trees(name, whole, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    entries = {**entries_of(whole), "arrays/99.npy": PICKLED_ARRAY}
    tree = json.loads(entries["ntk_uq.json"])
    text = json.dumps({**tree, "model": FORGED_MODELS[name]})
    if name == "deep":
        text = text.replace('"model": null', '"model": ' + "[" * 100_000 + "]" * 100_000)
    Path("model.ntk").write_bytes(
        archive({"ntk_uq.json": text, **{k: v for k, v in entries.items() if k != "ntk_uq.json"}})
    )
    with pytest.raises(ValueError, match="holds no model that this ntk_uq"):
        nuq.load("model.ntk")
    assert not Path("exploited").exists()


def test_the_exploit_would_work(tmp_path, monkeypatch):
    """Else its absence would show nothing."""
    monkeypatch.chdir(tmp_path)
    np.load(io.BytesIO(PICKLED_ARRAY), allow_pickle=True)
    assert Path("exploited").exists()


def test_forged_archives(whole, refuses):
    entries = entries_of(whole)
    refuses(archive({"ntk_uq.json": "{"}), "holds no model")
    refuses(archive({"ntk_uq.json": "[]"}), "holds no model")
    refuses(archive({"ntk_uq.json": b"\xff"}), "holds no model")
    refuses(archive(entries, compression=zipfile.ZIP_DEFLATED), "is compressed")
    without_arrays = {"ntk_uq.json": entries["ntk_uq.json"]}
    refuses(archive(without_arrays), "holds no model")
    emptied = {name: b"" if name.endswith(".npy") else text for name, text in entries.items()}
    refuses(archive(emptied), "holds no model")


def test_an_array_that_claims_to_be_huge(whole, refuses):
    entries = entries_of(whole)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f8", "fortran_order": False, "shape": (10**9, 10**5)}
    )
    (name, *_) = [name for name in entries if name.endswith(".npy")]
    refuses(archive({**entries, name: header.getvalue()}), "holds no model")


def test_networks_must_fit_the_architecture(tmp_path):
    nuq.save(
        fit(nuq.EnsembleClassifier, {"architecture": NET, "n_members": 2}), tmp_path / "model.ntk"
    )
    entries = entries_of((tmp_path / "model.ntk").read_bytes())
    text = entries["ntk_uq.json"].decode()
    for old, new, message in [
        ('"width": 8', '"width": 9', "networks of another architecture"),
        ('"depth": 1', '"depth": 1000000000', "fewer parameters than layers"),
    ]:
        assert old in text
        (tmp_path / "model.ntk").write_bytes(
            archive({**entries, "ntk_uq.json": text.replace(old, new)})
        )
        with pytest.raises(ValueError, match=message):
            nuq.load(tmp_path / "model.ntk")


def places(node, place=()):
    """Where something could stand in a tree."""
    yield place
    if not isinstance(node, dict | list):
        return
    for key, child in node.items() if isinstance(node, dict) else enumerate(node):
        yield from places(child, (*place, key))


FORGED = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5), st.sampled_from([[], {}, *FORGED_MODELS.values()]),
    st.dictionaries(
        st.sampled_from(["array", "scalar", "key", "objects", "tuple", "dict", "slice", "float",
                         "dtype", "scalar type", "path", "random state", "supplied", "object"]),
        st.one_of(st.integers(-1, 3), st.lists(st.integers(-1, 10**9), max_size=3)),
        min_size=1, max_size=2,
    ),
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_forgery_is_read_or_refused(whole, tmp_path_factory, data):
    entries = entries_of(whole)
    tree = json.loads(entries["ntk_uq.json"])
    *way, last = data.draw(st.sampled_from([place for place in places(tree) if place]))
    node = tree
    for key in way:
        node = node[key]
    node[last] = data.draw(FORGED)
    path = tmp_path_factory.mktemp("any") / "model.ntk"
    path.write_bytes(archive({**entries, "ntk_uq.json": json.dumps(tree)}))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* was written with scikit-learn")
        try:
            message = repr(nuq.load(path)) and "model.ntk"
        except ValueError as error:
            message = str(error)
    assert "model.ntk" in message


def test_loading_changes_nothing_global(whole, tmp_path):
    (tmp_path / "model.ntk").write_bytes(whole)
    before = dict(jax.config.values)
    nuq.load(tmp_path / "model.ntk")
    assert dict(jax.config.values) == before
