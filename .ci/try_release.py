"""Try what is released where the checkout is not.

python .ci/try_release.py sdist dist [pytest's arguments]   # the sdist, by its own tests
python .ci/try_release.py wheel                             # the wheel that is installed here
"""

import os
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

# What each optional part says where it is missing, and how it is asked for.
OPTIONAL = {
    "pyarrow": (
        "ntk_uq[parquet]",
        "from ntk_uq.tables import read_table; open('t.parquet', 'w').close(); "
        "read_table('t.parquet')",
    ),
    "onnx": ("ntk_uq[onnx]", "nuq.to_onnx(nuq.load('model.ntk'), 'model.onnx')"),
    "neural_tangents": ("neural-tangents", "nuq.stax.Dense"),
}
FIT = """
from sklearn.datasets import load_iris
X, y = load_iris(return_X_y=True)
model = nuq.NTKClassifier(reg=1.0, n_draws=16).fit(X, y)
assert model.score(X, y) > 0.9
nuq.save(model, 'model.ntk')
assert (nuq.load('model.ntk').predict_proba(X) == model.predict_proba(X)).all()
"""


def python(code: str, folder: str) -> subprocess.CompletedProcess:
    """Run code in a folder where nothing of the checkout can be imported."""
    return subprocess.run(
        [sys.executable, "-I", "-c", f"import ntk_uq as nuq\n{code}"],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip


def try_sdist(dist: Path, arguments: list[str]) -> int:
    """Exit status of the tests of the only sdist in a folder."""
    (sdist,) = dist.glob("*.tar.gz")
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(sdist) as archive:
            archive.extractall(folder, filter="data")
        (checkout,) = Path(folder).iterdir()
        dirt = [p for p in checkout.rglob("*") if p.name in ("__pycache__", ".cache", ".venv")]
        assert not dirt, dirt
        found = {**os.environ, "PYTHONPATH": str(checkout)}
        where = [sys.executable, "-c", "import ntk_uq; print(ntk_uq.__file__)"]
        (place,) = subprocess.check_output(where, cwd=folder, env=found, text=True).splitlines()
        assert Path(place).is_relative_to(checkout), place
        command = [sys.executable, "-m", "pytest", *arguments]
        return subprocess.run(command, cwd=checkout, env=found, check=False).returncode


def try_wheel() -> None:
    """Fit, save, load, the shell, and what is said of each part that is not there."""
    print(f"ntk_uq {version('ntk_uq')} alone")
    with tempfile.TemporaryDirectory() as folder:
        fitted = python(FIT, folder)
        assert fitted.returncode == 0, fitted.stderr
        command = Path(sys.executable).with_name("ntk-uq")
        said = subprocess.run([command, "--help"], capture_output=True, text=True, check=True)
        assert "compare" in said.stdout, said.stdout
        for name, (extra, code) in OPTIONAL.items():
            assert find_spec(name) is None, f"{name} is there: this is no minimal environment"
            refused = python(code, folder)
            assert refused.returncode != 0, code
            last = refused.stderr.strip().splitlines()[-1]
            assert "pip install" in last, refused.stderr
            assert extra in last, refused.stderr
            print(f"without {name}: {last}")


if __name__ == "__main__":
    if sys.argv[1] == "sdist":
        sys.exit(try_sdist(Path(sys.argv[2]), sys.argv[3:]))
    try_wheel()
