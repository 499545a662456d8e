"""Pages ask no other host for anything: scripts, styles, fonts and pictures lie beside them."""

import re
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util import logging

# What a browser fetches when it opens a page, not what a reader may follow.
_FETCHED = re.compile(
    r"""<(?:script|img|iframe|source|embed|video|audio)\b[^>]*?\bsrc\s*=\s*["']((?:https?:)?//[^"']+)"""
    r"""|<link\b(?![^>]*\brel\s*=\s*["'](?:canonical|search|index|next|prev)["'])"""
    r"""[^>]*?\bhref\s*=\s*["']((?:https?:)?//[^"']+)"""
    r"""|<object\b[^>]*?\bdata\s*=\s*["']((?:https?:)?//[^"']+)"""
    r"""|url\(\s*["']?((?:https?:)?//[^"')]+)"""
    r"""|@import\s+["']((?:https?:)?//[^"']+)""",
    re.IGNORECASE,
)


def requests(site: Path) -> dict[str, set[str]]:
    """What each page or style sheet of a built site would fetch from other hosts."""
    files = [file for file in site.rglob("*") if file.suffix in {".html", ".css", ".svg"}]
    found = {
        file.relative_to(site).as_posix(): {
            next(filter(None, match.groups()))
            for match in _FETCHED.finditer(file.read_text(encoding="utf-8"))
        }
        for file in files
    }
    return {name: addresses for name, addresses in found.items() if addresses}


def _check(app: Sphinx, exception: Exception | None) -> None:
    if exception is None and app.builder.format == "html":
        for page, addresses in requests(Path(app.outdir)).items():
            logging.getLogger(__name__).warning("%s asks for %s", page, sorted(addresses))


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("build-finished", _check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
