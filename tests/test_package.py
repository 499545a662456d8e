"""The package as it is imported and installed."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import ntk_uq

ROOT = Path(__file__).parents[1]
# Load when they are used, not when ntk_uq is imported.
HEAVY = ["arviz", "jinja2", "matplotlib", "numpyro", "pandas", "sklearn", "tensorflow"]


def python(code: str, **options) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, **options
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def loaded_after(statements: str) -> set[str]:
    names = python(f"{statements}\nimport sys; print(*sys.modules)").split()
    return {name.partition(".")[0] for name in names}


def test_import_is_light():
    assert loaded_after("import ntk_uq; ntk_uq.MLP()").isdisjoint(HEAVY)


def test_estimators_load_no_sampler_and_no_plots():
    """Those that sample nothing: a sampler takes seconds to import, and is another estimator's."""
    loaded = loaded_after("import ntk_uq; ntk_uq.NTKClassifier(), ntk_uq.EnsembleRegressor()")
    # scikit-learn itself loads pandas where it is installed.
    assert loaded.isdisjoint(set(HEAVY) - {"sklearn", "pandas"})


def test_producers_know_nothing_of_scikit_learn():
    loaded = loaded_after("import ntk_uq.analytic, ntk_uq.ensemble, ntk_uq.networks")
    assert "sklearn" not in loaded
    producers = (ROOT / "ntk_uq").glob("*/producer.py")
    assert all("sklearn" not in file.read_text() for file in producers)


def test_public_names_resolve():
    for name in ntk_uq.__all__:
        assert getattr(ntk_uq, name) is not None


def test_compare_stays_a_function_once_its_module_is_loaded():
    python("import ntk_uq.compare, ntk_uq; assert callable(ntk_uq.compare)")


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = ntk_uq.no_such_name


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_make_knows_the_folders_of_every_system():
    """What `make` would run: environments have bin/ or, on Windows, Scripts/."""
    for system, folder, other in (("Windows_NT", "Scripts", "bin"), ("", "bin", "Scripts")):
        for target in ("test", "test-lowest", "release", "bench-rivals"):
            said = subprocess.run(
                ["make", "--dry-run", "--always-make", f"OS={system}", target],
                cwd=ROOT, capture_output=True, text=True, check=True,
            ).stdout  # fmt: skip
            assert f"/{folder}/python" in said
            assert f"/{other}/" not in said


def built(target, folder):
    """The only file that is built."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", target, "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (file,) = folder.iterdir()
    return file


def test_sdist_has_what_its_tests_read_and_nothing_that_was_made(tmp_path):
    sdist = built("sdist", tmp_path)
    with tarfile.open(sdist) as archive:
        shipped = {Path(*Path(name).parts[1:]) for name in archive.getnames()}
    made = {"__pycache__", ".cache", ".venv", "_build", ".git", ".hypothesis"}
    assert not [path for path in shipped if made & set(path.parts)]
    for folder in ("ntk_uq", "tests", "tests/golden", "benchmarks", "docs", "notebooks", ".ci"):
        files = {path.relative_to(ROOT) for path in (ROOT / folder).iterdir() if path.is_file()}
        assert files <= shipped, files - shipped


def test_wheel_works_where_it_is_unpacked(tmp_path):
    wheel = built("wheel", tmp_path)
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)

    sources = {path.relative_to(ROOT) for path in (ROOT / "ntk_uq").rglob("*") if path.is_file()}
    shipped = {path.relative_to(site) for path in (site / "ntk_uq").rglob("*")}
    assert {path for path in sources if "__pycache__" not in path.parts} <= shipped
    (entry_points,) = site.glob("*.dist-info/entry_points.txt")
    assert "ntk-uq = ntk_uq.cli:main" in entry_points.read_text()
    # Elsewhere, with all of it loaded: the files are there, and JAX is as the user configured it.
    help_text = python(
        "import jax; before = dict(jax.config.values)\n"
        "import ntk_uq, ntk_uq.report, ntk_uq.cli\n"
        f"assert ntk_uq.__file__.startswith({str(site)!r})\n"
        "for name in ntk_uq.__all__: getattr(ntk_uq, name)\n"
        "assert dict(jax.config.values) == before\n"
        "ntk_uq.cli.main(['compare', '--help'])",
        cwd=tmp_path,
        env={"PYTHONPATH": str(site), "PATH": ""},
    )
    assert "--target" in help_text
