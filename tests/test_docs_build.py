"""What the pages are built with: formulas as MathML, and nothing from other hosts."""

import io
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

# What the pages are built with is no part of the tests' own group.
Sphinx = pytest.importorskip("sphinx.application").Sphinx
pytest.importorskip("math_core")

DOCS = Path(__file__).parents[1] / "docs"
CONF = """
extensions = ["myst_parser", "mathml", "offline"]
html_math_renderer = "mathml"
html_theme = "basic"
myst_enable_extensions = ["amsmath", "dollarmath"]
"""
PAGE = r"""# Formulas

In a line, $\sqrt{x_1}$; with a number,

$$
a &= b, \\
c &= \sum_{i=1}^n i
$$ (two)

and as an environment, which counts on:

\begin{align}
p &= q
\end{align}

See {eq}`two`.
"""


@pytest.fixture
def build(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(DOCS)

    def build(page):
        source, site = tmp_path / "source", tmp_path / "site"
        source.mkdir()
        (source / "conf.py").write_text(CONF)
        (source / "index.md").write_text(page)
        said = io.StringIO()
        app = Sphinx(source, source, site, tmp_path, "html", status=None, warning=said)
        app.build()
        return site, said.getvalue()

    yield build
    for name in ("mathml", "offline"):
        sys.modules.pop(name, None)


def test_formulas_are_mathml_with_numbers_and_references(build):
    site, said = build(PAGE)
    assert said == ""
    html = (site / "index.html").read_text()
    formulas = [
        ElementTree.fromstring(f"<math{part.split('</math>')[0]}</math>")
        for part in html.split("<math")[1:]
    ]
    line, two, three = formulas
    assert line.get("display") is None
    assert [two.get("display"), three.get("display")] == ["block", "block"]
    assert len(two.findall(".//mtr")) == 2
    assert line.find(".//msqrt") is not None
    # Numbered once, by Sphinx, in the order of the page.
    assert "(1)" not in "".join(three.itertext())
    assert html.count('class="eqno">(1)') == html.count('class="eqno">(2)') == 1
    assert 'href="#equation-two"' in html
    assert "\\begin" not in html
    assert (site / "_static" / "STIXTwoMath-Regular.ttf").stat().st_size > 10**5


def test_a_formula_that_is_not_understood_is_a_warning_with_its_place(build):
    _, said = build("# Page\n\nOf $\\unknowable{x}$ nothing is known.")
    assert "index.md:3: WARNING" in said
    assert "unknowable" in said


def test_requests_to_other_hosts_are_warnings(build):
    fetched = [
        '<script src="https://one.example/a.js"></script>',
        '<link rel="stylesheet" href="//two.example/b.css">',
        "<img alt='' src='http://three.example/c.png'>",
        "<style>@import 'https://four.example/d.css';</style>",
        "<style>p { background: url(//five.example/e); }</style>",
    ]
    followed = (
        '<a href="https://six.example">six</a> <link rel="canonical" href="https://six.example/x">'
    )
    _, said = build("# Page\n\n" + "\n".join(fetched) + f"\n\n{followed}\n")
    for name in ("one", "two", "three", "four", "five"):
        assert f"{name}.example" in said
    assert "six.example" not in said
