"""Estimators in ONNX: onnxruntime says what they say."""

import builtins
from pathlib import Path

import numpy as np
import pytest
from flax import nnx

import ntk_uq as nuq

# Golden files are of one version of it.
pytestmark = pytest.mark.filterwarnings("ignore:.* was written with scikit-learn")

GOLDEN = Path(__file__).parents[1] / "golden"
X = np.random.default_rng(5).normal(size=(7, 2))


def answers(model, path, points):
    """What onnxruntime gives, by name of the output."""
    session = pytest.importorskip("onnxruntime").InferenceSession(path)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"X": points}), strict=True))


def _in_branches(graph):
    inner = [a.g for node in graph.node for a in node.attribute if a.HasField("g")]
    return {name for g in inner for node in g.node for name in node.input}.union(
        *map(_in_branches, inner)
    )


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("ntk-mixture", "double"),  # what NTKClassifier() is
        ("ntk-mixture", "single"),
        ("ntk-exact", "double"),
        ("ntk-none", "double"),
        ("ntk-posterior", "double"),
        ("ntk-regressor", "double"),
        ("ntk-regressor-exact", "double"),
        ("ntk-regressor-exact", "single"),
        ("ensemble", "double"),
    ],
)
def test_onnxruntime_agrees(name, precision, tmp_path):
    onnx = pytest.importorskip("onnx")
    model, path = nuq.load(GOLDEN / f"{name}.ntk"), tmp_path / "model.onnx"
    nuq.to_onnx(model, path, precision=precision)
    graph = onnx.load(path).graph
    taken = {name for node in graph.node for name in node.input} | _in_branches(graph)
    assert {constant.name for constant in graph.initializer} <= taken
    tolerance, dtype = (1e-5, np.float64) if precision == "double" else (1e-4, np.float32)
    for points in (X, X[:1]):
        found = answers(model, path, points.astype(dtype))
        prediction = model.predict_distribution(points)
        if "proba" in found:
            expected = {
                "proba": prediction.proba(),
                "total_uncertainty": prediction.total_uncertainty,
                "aleatoric": prediction.aleatoric,
                "epistemic": prediction.epistemic,
            }
        else:
            expected = {"mean": prediction.mean, "std": prediction.std}
        assert set(found) == set(expected)
        for output, values in expected.items():
            np.testing.assert_allclose(found[output], values, atol=tolerance, err_msg=output)


def test_what_onnx_has_not_is_refused(tmp_path):
    pytest.importorskip("onnx")
    model = nuq.load(GOLDEN / "ntk-gaussian.ntk")
    with pytest.raises(ValueError, match=r"has the operation eigh.*can be exported"):
        nuq.to_onnx(model, tmp_path / "model.onnx")
    with pytest.raises(ValueError, match="is no function"):
        nuq.to_onnx(nuq.load(GOLDEN / "bayes.ntk"), tmp_path / "model.onnx")
    model = nuq.load(GOLDEN / "ntk-exact.ntk")
    with pytest.raises(FileNotFoundError, match=r"The folder \S+missing does not exist"):
        nuq.to_onnx(model, tmp_path / "missing" / "model.onnx")
    assert not any(tmp_path.iterdir())


def test_kernels_that_are_read_off(tmp_path):
    """Of a module of the user's, where its activation's kernel has a closed form."""
    pytest.importorskip("onnx")
    path = tmp_path / "model.onnx"

    def fitted(activation):
        def build(d, k, *, rngs):
            hidden, readout = nnx.Linear(d, 8, rngs=rngs), nnx.Linear(8, k, rngs=rngs)
            return nnx.Sequential(hidden, activation, readout)

        clf = nuq.NTKClassifier(nuq.Architecture(build), reg=1.0, n_draws=4, progress=False)
        return clf.fit(X, np.arange(len(X)) % 2)

    with pytest.raises(ValueError, match="has the operation"):
        nuq.to_onnx(fitted(nnx.tanh), path)
    model = fitted(nnx.relu)
    nuq.to_onnx(model, path)
    points = np.random.default_rng(6).normal(size=(5, 2))
    np.testing.assert_allclose(
        answers(model, path, points)["proba"], model.predict_proba(points), rtol=1e-5
    )


@pytest.mark.filterwarnings("ignore:.* is empty")
@pytest.mark.parametrize("precision", ["double", "single"])
def test_a_table_with_gaps(precision, tmp_path):
    """Two columns with gaps, which new points have elsewhere, and one that is left out."""
    rng, path = np.random.default_rng(7), tmp_path / "model.onnx"
    table, points = rng.normal(size=(24, 5)), rng.normal(size=(6, 5))
    labels = (table[:, 1] > 0).astype(int)
    table[::5, 1] = table[::7, 4] = points[::2, 1] = points[1::3, 4] = np.nan
    table[:, 2] = np.nan
    clf = nuq.NTKClassifier(reg=1.0, n_draws=4, progress=False).fit(table, labels)
    pytest.importorskip("onnx")
    nuq.to_onnx(clf, path, precision=precision)
    tolerance, dtype = (1e-5, np.float64) if precision == "double" else (1e-4, np.float32)
    found = answers(clf, path, points.astype(dtype))["proba"]
    np.testing.assert_allclose(found, clf.predict_proba(points), atol=tolerance)


def test_without_onnx_the_error_says_how_to_install_it(monkeypatch, tmp_path):
    real = builtins.__import__

    def without(name, *arguments, **options):
        if name == "onnx":
            raise ImportError("No module named 'onnx'")
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install 'ntk_uq\[onnx\]'"):
        nuq.to_onnx(nuq.load(GOLDEN / "ntk-none.ntk"), tmp_path / "model.onnx")
