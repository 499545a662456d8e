"""Sphinx configuration: pages in MyST, docstrings in numpydoc, notebooks run at build time."""

import os
from pathlib import Path

import ntk_uq

# Pages draw the tables of the experiments by the experiments' own functions.
os.environ["PYTHONPATH"] = str(Path(__file__).parents[1] / "benchmarks" / "claims")

project = "ntk_uq"
author = "the ntk_uq developers"
version = release = ntk_uq.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.viewcode", "numpydoc", "myst_nb"]
exclude_patterns = ["_build"]
default_role = "literal"

html_theme = "furo"
html_show_copyright = False
html_title = f"ntk_uq {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]

# Types stand in the docstrings, with their shapes.
autodoc_typehints = "none"
autodoc_member_order = "bysource"
numpydoc_show_class_members = False

myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath"]
myst_heading_anchors = 3

nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
