"""The pages are complete, and what they name exists."""

import importlib.util
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import ntk_uq

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
STUB = Path(ntk_uq.__file__).with_name("__init__.pyi").read_text()
MODULES = re.findall(r"^from \. import (\w+) as", STUB, flags=re.MULTILINE)


def names_of(module):
    """What a module offers: __all__, or what is defined in it and has no underscore."""
    defined = [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]
    return getattr(module, "__all__", defined)


def public():
    """Every public function and class, by the name that one types after ``ntk_uq.``."""
    found = {name: getattr(ntk_uq, name) for name in ntk_uq.__all__}
    for module in MODULES:
        names = names_of(getattr(ntk_uq, module))
        found |= {f"{module}.{name}": getattr(getattr(ntk_uq, module), name) for name in names}
    return {
        name: value
        for name, value in found.items()
        if inspect.isclass(value) or inspect.isfunction(value)
    }


PUBLIC = public()


def documented():
    """Names that the directives of the reference cover."""
    text, found = (DOCS / "api.md").read_text(), set()
    for name in re.findall(r"^\.\. auto(?:class|function):: (\S+)", text, flags=re.MULTILINE):
        found.add(name.removeprefix("ntk_uq."))
    for module, options in re.findall(r"^\.\. automodule:: (\S+)\n((?:   :.*\n)+)", text, re.M):
        short = module.removeprefix("ntk_uq.")
        if short in MODULES and "   :members:\n" in options:
            found |= {f"{short}.{name}" for name in names_of(getattr(ntk_uq, short))}
        excluded = re.findall(r":exclude-members: (.*)", options)
        found -= {f"{short}.{name.strip()}" for row in excluded for name in row.split(",")}
    # The same object under another name, such as ntk_uq.TemperatureScaled, counts.
    covered = {id(PUBLIC[name]) for name in found & PUBLIC.keys()}
    return {name for name, value in PUBLIC.items() if id(value) in covered}


def test_the_reference_has_every_public_name():
    assert len(PUBLIC) > 100
    assert PUBLIC.keys() - documented() == set()


def test_the_reference_names_the_modules_that_are_not_this_packages():
    assert re.search(r"^\.\. py:data:: stax$", (DOCS / "api.md").read_text(), flags=re.MULTILINE)


@pytest.mark.parametrize("name", PUBLIC)
def test_docstring_has_an_example(name):
    if isinstance(PUBLIC[name], type) and issubclass(PUBLIC[name], Warning):
        return  # nobody makes one
    doc = inspect.getdoc(PUBLIC[name])
    assert re.search(r"^Examples\n-+\n(?s:.*)^>>> ", doc, flags=re.MULTILINE), doc


def contents(page):
    """Pages that a page's tables of contents name."""
    text = page.read_text()
    for body in re.findall(r"^```\{toctree\}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL):
        for line in body.splitlines():
            if line.strip() and not line.startswith(":"):
                yield re.sub(r".*<(.*)>", r"\1", line.strip())


def test_every_page_is_in_the_contents():
    found, waiting = set(), [DOCS / "index.md"]
    while waiting:
        page = waiting.pop()
        found.add(page)
        if page.suffix != ".md":
            continue
        for entry in contents(page):
            target = page.parent / entry
            (file,) = [
                f for f in (target.with_suffix(".md"), target.with_suffix(".ipynb")) if f.exists()
            ]
            waiting.append(file)
    pages = {page for page in DOCS.rglob("*.md") if "_build" not in page.parts}
    assert (pages | set(DOCS.glob("*.ipynb"))) - found == set()


def test_the_map_has_every_module():
    spec = importlib.util.spec_from_file_location("conf", DOCS / "conf.py")
    conf = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(conf)
    named = set(re.findall(r"^ *- `([\w/]+)`: \S", conf.modules(), flags=re.MULTILINE))
    package = ROOT / "ntk_uq"
    files = {file.relative_to(package).with_suffix("").as_posix() for file in package.rglob("*.py")}
    assert named == {name.removesuffix("/__init__") for name in files - {"__init__"}}
    assert "% modules" in (DOCS / "contributing.md").read_text().splitlines()


# Not of the package: a file in an archive, and names that files of an earlier version hold.
# Of files, some of classes that have moved.
OTHER_NAMES = {
    "ntk_uq.json",
    "ntk_uq.analytic._PerOutput",
    "ntk_uq.analytic._Shared",
    "ntk_uq.estimators.tails",
    "ntk_uq.estimators.tails.CompressedTails",
}
PAGES = [
    ROOT / "README.md",
    ROOT / "Makefile",
    ROOT / "pyproject.toml",
    *sorted(page for page in DOCS.rglob("*.*") if page.suffix in (".md", ".ipynb", ".py")),
    *sorted((ROOT / "notebooks").rglob("*.ipynb")),
    *sorted((ROOT / "benchmarks").rglob("*.py")),
    *sorted((ROOT / "ntk_uq").rglob("*.py")),
]
TEXTS = {page.relative_to(ROOT): page.read_text() for page in PAGES if "_build" not in page.parts}


def test_names_that_are_written_exist():
    """In full, as ``ntk_uq.analytic.exact_predictor``, or imported; in code, words and examples."""
    named = {}
    for page, text in TEXTS.items():
        found = {
            "ntk_uq" + name for name in re.findall(r"\b(?:ntk_uq|nuq)((?:\.[A-Za-z_]\w*)+)", text)
        }
        for module, names in re.findall(
            r"from (ntk_uq[\w.]*) import (\([^)]*\)|[^\n\"\\;]*)", text
        ):
            found |= {
                f"{module}.{name}" for name in re.findall(r"\b(?<!as )[A-Za-z_]\w*\b(?<!as)", names)
            }
        named |= {name: page for name in found - OTHER_NAMES}
    assert len(named) > 200
    assert {name: page for name, page in named.items() if not exists(name)} == {}


def exists(name):
    try:
        pkgutil.resolve_name(name)
    except (AttributeError, ImportError):
        return False
    return True


def test_files_that_are_written_exist():
    """As ``tests/test_bayes.py``."""
    pattern = r"(?<![\w/])(?:ntk_uq|tests|benchmarks|docs|notebooks)/[\w/]+\.(?:pyi?|md|ipynb)\b"
    named = {name: page for page, text in TEXTS.items() for name in re.findall(pattern, text)}
    assert len(named) > 20
    assert {name: page for name, page in named.items() if not (ROOT / name).exists()} == {}
