"""Sphinx configuration: pages in MyST, docstrings in numpydoc, notebooks run at build time."""

import ast
import os
import sys
import tomllib
from pathlib import Path

import ntk_uq

CHECKOUT = Path(__file__).parents[1]

# Pages draw the tables of the experiments by the experiments' own functions, and run the command.
BENCHMARKS = CHECKOUT / "benchmarks"
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [str(BENCHMARKS), str(BENCHMARKS / "claims"), os.environ.get("PYTHONPATH")])
)
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])

project = "ntk_uq"
author = "the ntk_uq developers"
version = release = ntk_uq.__version__

sys.path.insert(0, str(CHECKOUT / "docs"))
extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "numpydoc",
    "myst_nb",
    "forked_kernels",
    "mathml",
    "offline",
]
html_math_renderer = "mathml"
exclude_patterns = ["_build"]
default_role = "literal"

html_theme = "furo"
html_show_copyright = False
html_title = f"ntk_uq {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
if "NTK_UQ_SMALL" in os.environ:
    html_theme_options = {
        "announcement": "Built at small sizes, to show that they run: these are not the figures "
        "of the text. <code>make docs</code> builds the pages for readers."
    }

# Types stand in the docstrings, with their shapes.
autodoc_typehints = "none"
autodoc_member_order = "bysource"
numpydoc_show_class_members = False

myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath"]
myst_heading_anchors = 3

nb_execution_mode = "force"
nb_execution_raise_on_error = True
# A busy machine is no fault of a page.
nb_execution_timeout = 3600


def modules() -> str:
    """Every module by the first line of its docstring, in the order in which data flows."""
    settings = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (layers,) = (c["layers"] for c in settings["contracts"] if c["type"] == "layers")
    lines = []
    for room in " | ".join(reversed(layers)).split(" | "):
        path = CHECKOUT / "ntk_uq" / room
        files = {room: path.with_suffix(".py")}
        if path.is_dir():
            names = {f: f.relative_to(path.parent).with_suffix("") for f in path.rglob("*.py")}
            files = {str(n).removesuffix("/__init__"): f for f, n in names.items()}
        for name in sorted(files):
            text = ast.get_docstring(ast.parse(files[name].read_text())).splitlines()[0]
            lines.append(f"{'' if name == room else '  '}- `{name}`: {text}")
    return "\n".join(lines)


def _draw_the_map(app, name: str, source: list[str]) -> None:
    if name == "contributing":
        source[0] = source[0].replace("% modules", modules())


def setup(app) -> None:
    app.connect("source-read", _draw_the_map)
