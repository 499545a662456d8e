"""Formulas as MathML: browsers draw it, without a script, by a font that lies beside the pages.

A formula that is not understood fails the build, by its page and line.
"""

import importlib.util
import re
from pathlib import Path
from typing import NoReturn

import math_core
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.locale import _
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number

_CONVERTER = math_core.LatexToMathML(fancy_error=False)


def mathml(tex: str, *, block: bool = False) -> str:
    """The formula; lines of one that is not in an environment are aligned at ``&``."""
    # Sphinx counts the equations, so that references to them hold.
    tex = re.sub(r"\\(begin|end)\{(align|equation|gather|multline)\}", r"\\\1{\2*}", tex.strip())
    if block and r"\\" in tex and not tex.startswith(r"\begin"):
        tex = rf"\begin{{aligned}}{tex}\end{{aligned}}"
    return _CONVERTER.convert_with_local_state(tex, displaystyle=block)


def _checked(node: nodes.Element, *, block: bool) -> str:
    try:
        return mathml(node.astext(), block=block)
    except math_core.LatexError as error:
        logging.getLogger(__name__).warning(
            "%s in the formula %s", error, node.astext(), location=node
        )
        return ""


def _visit_inline(self, node: nodes.math) -> NoReturn:
    formula = _checked(node, block=False)
    self.body.append(self.starttag(node, "span", "", CLASS="math") + formula + "</span>")
    raise nodes.SkipNode


def _visit_block(self, node: nodes.math_block) -> NoReturn:
    self.body.append(self.starttag(node, "div", CLASS="math"))
    if node.get("number"):
        self.body.append(f'<span class="eqno">({get_node_equation_number(self, node)})')
        self.add_permalink_ref(node, _("Link to this equation"))
        self.body.append("</span>")
    self.body.append(_checked(node, block=True) + "</div>\n")
    raise nodes.SkipNode


def _bring_the_font(app: Sphinx, config: Config) -> None:
    """From a package that ships it; `site.css` names it."""
    (package,) = importlib.util.find_spec("ziamath").submodule_search_locations
    config.html_static_path.append(str(Path(package) / "fonts" / "STIXTwoMath-Regular.ttf"))


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_html_math_renderer(
        "mathml", inline_renderers=(_visit_inline, None), block_renderers=(_visit_block, None)
    )
    app.connect("config-inited", _bring_the_font)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
