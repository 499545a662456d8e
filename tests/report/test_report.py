import html
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.figure import Figure
from stand_ins import StandIn, comparison, diagnostics

from ntk_uq.compare import compare
from ntk_uq.metrics import CalibrationCheck
from ntk_uq.plots import plot_latents, plot_uncertainty
from ntk_uq.predictions import SamplePrediction
from ntk_uq.report import (
    RegChoice,
    calibration_finding,
    calibration_findings,
    choice_findings,
    findings,
)
from ntk_uq.selection import RegCurve

VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """Checks nesting, and collects what the tests ask for."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.words = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"
        self.text = re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.attributes if name == tag]


@pytest.fixture(autouse=True)
def _blank_pictures(request, monkeypatch):
    """Pictures are most of a report's time, and the default run reads its words."""

    def blank(figure, file, **options):
        file.write(b"<svg/>")

    if not request.node.get_closest_marker("slow"):
        monkeypatch.setattr(Figure, "savefig", blank)


def report(tmp_path, compared, **options):
    path = tmp_path / "report.html"
    compared.to_html(path, **options)
    return path.read_text(encoding="utf-8")


@pytest.mark.slow
def test_page_is_whole_and_self_contained(tmp_path):
    text = report(tmp_path, comparison(), images=np.random.default_rng(0).random((60, 4, 4)))
    page = Page(text)
    assert page.tags[0] == "html"
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert all(image["src"].startswith("data:image/") for image in page.all("img"))
    assert all(len(image["alt"]) > 10 for image in page.all("img"))
    # Distances, 3 reliability, 2 uncertainty, 2 latents, 6 points with images, 2 diagnostics.
    assert len(page.all("img")) == 1 + 3 + 2 + 2 + 12 + 2
    # Addresses stand in namespaces only, which nobody fetches.
    assert not re.search(r"(src|href)=[\"']?http|url\(|@import", text)
    identifiers = [a["id"] for _, a in page.attributes if "id" in a]
    assert len(identifiers) == len(set(identifiers))
    labels = {a["aria-labelledby"] for a in page.all("section")}
    assert labels <= set(identifiers)
    assert page.all("h1")
    assert page.all("meta")[1]["name"] == "viewport"


def test_table_shows_the_numbers(tmp_path):
    compared = comparison()
    page = Page(report(tmp_path, compared))
    for name, row in compared.table.iterrows():
        assert name in page.text
        assert f"{row['accuracy']:.3f}" in page.text
        assert f"{row['aleatoric']:.3f}" in page.text
        assert f"{row['n_effective']:.0f}" in page.text or np.isnan(row["n_effective"])
    for word in (
        "Accuracy",
        "Log loss",
        "Brier",
        "ECE",
        "Epistemic",
        "Distance from mcmc",
        "KL divergence",
        "rank correlation",
        "Effective draws",
    ):
        assert word in page.text


def test_pairs_show_who_agrees(tmp_path):
    compared = comparison()
    text = report(tmp_path, compared)
    distance = compared.distance("finite", "infinite")
    agreeing = len(re.findall(r'<td data-method="[^"]+" class="same">', text))
    assert agreeing == sum(not d.tv.is_significant for d in compared.distances.values())
    assert f"{distance.tv.value:.4f}" in text


def test_narrow_screens_lose_no_column(tmp_path):
    """There each cell says whose it is, and the header row, which it replaces, is not shown."""
    text = report(tmp_path, comparison())
    cells = [cell["data-method"] for cell in Page(text).all("td") if "data-method" in cell]
    assert len(cells) % 3 == 0
    assert set(cells) == {"finite", "infinite", "mcmc"}
    narrow = text[text.index("@media (max-width: 36rem)") :]
    assert ".methods thead { display: none; }" in narrow
    assert "content: attr(data-method)" in narrow
    # A long name is broken, where a table does not scroll.
    assert re.search(r"body \{[^}]*overflow-wrap: anywhere", text)
    assert ".methods { overflow-wrap: anywhere; }" in narrow


def test_reg_stands_at_the_top(tmp_path):
    compared = comparison()
    for regs, words in (
        ((0.5, 0.5, 0.5), "all with reg = 0.5"),
        ((0.5, 0.5, 1.0), "with reg = 0.5 (finite), reg = 0.5 (infinite), reg = 1 (mcmc)"),
        ((0.5, 0.5, None), ""),
    ):
        methods = {
            name: replace(method, estimator=f"NTKClassifier(architecture=MLP(), reg={reg})")
            for (name, method), reg in zip(compared.methods.items(), regs, strict=True)
        }
        text = report(tmp_path, replace(compared, methods=methods))
        header = Page(text[text.index("<header>") : text.index("</header>") + 9]).text
        assert words in header
        assert ("reg" in header) == bool(words)


def test_run_is_described(tmp_path):
    run = {"Data set": "bees and ants", "Training points": 123}
    page = Page(report(tmp_path, comparison(), title="Insects", run=run))
    for text in ("Insects", "bees and ants", "123", "Versions", "jax", "1.5 s"):
        assert text in page.text


@pytest.mark.slow
def test_bad_chains_are_said_plainly(tmp_path):
    good = Page(report(tmp_path, comparison()))
    assert "No sign of trouble" in good.text
    assert "with care" not in good.text
    sentence = "7 of 400 draws diverged: do not trust them."
    bad = Page(report(tmp_path, comparison(sampler=diagnostics(warnings=(sentence,)))))
    assert bad.text.count(sentence) == 2  # in the summary and beside the diagnostics
    assert "Take mcmc with care" in bad.text
    assert "No sign of trouble" not in bad.text


def test_networks_that_did_not_converge_are_said(tmp_path):
    stand_in = StandIn(SamplePrediction(np.zeros((4, 5, 3)), joint=True))
    stand_in.converged_ = np.array([True, False, True, False])
    page = Page(report(tmp_path, compare({"ensemble": stand_in}, np.zeros((5, 1)))))
    assert "Take ensemble with care" in page.text
    assert "2 of 4 networks stopped before" in page.text


def test_methods_are_described(tmp_path):
    page = Page(report(tmp_path, comparison(), about={"finite": "Thirty-two <networks>."}))
    assert "What is compared" in page.text
    assert "Thirty-two <networks>." in page.text


def test_one_chain_has_no_rhat(tmp_path):
    page = Page(report(tmp_path, comparison(sampler=diagnostics(n_chains=1))))
    assert "unknown: there is only one chain" in page.text


def test_text_of_the_user_is_escaped(tmp_path):
    evil = '<script>alert("x")</script> $\\frac{a$ & {{ 7 * 7 }}'
    compared = comparison(
        names=(evil, "<b>infinite</b>", "mcmc"),
        classes=('"cat"', "<i>ant</i>", "bee & fly"),
        sampler=diagnostics(warnings=(evil,)),
    )
    text = report(tmp_path, compared, title=evil, run={evil: evil})
    page = Page(text)
    assert not {"script", "b", "i"} & set(page.tags)
    assert evil.replace("\n", " ") in page.text
    assert html.escape("<i>ant</i>") in text


def test_without_labels_or_reference(tmp_path):
    page = Page(report(tmp_path, comparison(labelled=False, with_reference=False)))
    assert "Accuracy" not in page.text
    assert "Distance" not in page.text
    assert "Epistemic" in page.text


def test_probabilities_of_a_peer_without_a_spread(tmp_path):
    """A single forecast, as of a model of another package: certain of some points."""
    peer = SamplePrediction.from_probabilities([[[1.0, 0.0], [0.3, 0.7]]])
    ours = SamplePrediction.from_probabilities([[[0.9, 0.1], [0.4, 0.6]], [[0.8, 0.2], [0.5, 0.5]]])
    compared = compare({"ours": ours, "peer": peer}, np.zeros((2, 1)), np.array([0, 1]))
    page = Page(report(tmp_path, compared))
    assert "Mean: correlation" in page.text
    assert "Standard deviation" not in page.text
    assert not re.search(r"\bnan\b", page.text, re.IGNORECASE)
    # Its epistemic uncertainty is 0 everywhere: no picture, and no rank in one that is asked for.
    assert "Where are the methods unsure?" not in page.text
    assert plot_uncertainty(compared, "peer", "ours", ax=Figure().subplots()).get_title() == (
        "Epistemic uncertainty"
    )
    with pytest.raises(ValueError, match="peer is a single draw"):
        plot_latents(compared, "peer", "ours", moment="std")


@pytest.mark.slow
def test_different_problems_are_said(tmp_path):
    assert "different problems" not in Page(report(tmp_path, comparison())).text
    sentence = "reg is 1 for finite, but 2 for mcmc."
    compared = replace(comparison(), differences=(sentence,))
    page = Page(report(tmp_path, compared))
    assert "The methods solve different problems" in page.text
    assert sentence in page.text


def test_findings_follow_the_numbers():
    compared = comparison()
    overall, by_method = findings(compared)
    assert f"of the {compared.n_points} test points are classified right" in overall
    assert list(by_method) == ["finite", "infinite"]
    # The sampled posterior is twice as wide.
    assert "finite and infinite differ from mcmc" in overall
    assert "surer of itself than mcmc" in by_method["infinite"]
    assert "a real difference" in by_method["infinite"]
    assert "differs from mcmc in the logits at single points" in by_method["infinite"]


def test_findings_tell_agreement():
    rng = np.random.default_rng(0)
    mean = rng.standard_normal((50, 3))
    names = ("a", "b")
    draws = [SamplePrediction(mean + rng.standard_normal((300, 50, 3))) for _ in names]
    methods = dict(zip(names, map(StandIn, draws), strict=True))
    overall, by_method = findings(compare(methods, np.zeros((50, 1)), reference="b"))
    assert "class probabilities of a cannot be told from those of b" in overall
    assert "no sign of a difference" in by_method["a"]
    assert "as unsure as b" in by_method["a"]
    assert "No difference can be seen in the logits at single points" in by_method["a"]
    assert "Beyond sampling noise" not in by_method["a"]


def test_an_interrupted_report_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("old")

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        comparison().to_html(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.slow
def test_colour_images(tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (60, 5, 4, 3), dtype=np.uint8)
    assert "image/png" in report(tmp_path, comparison(), images=images)


def test_bad_input(tmp_path):
    compared = comparison()
    with pytest.raises(ValueError, match=r"images must have shape \[60, height, width\]"):
        compared.to_html(tmp_path / "r.html", images=np.zeros((59, 4, 4)))
    with pytest.raises(ValueError, match="images must have shape"):
        compared.to_html(tmp_path / "r.html", images=np.zeros((60, 16)))
    with pytest.raises(ValueError, match=r"about describes \['nuts'\]"):
        compared.to_html(tmp_path / "r.html", about={"nuts": "a sampler"})
    with pytest.raises(OSError, match="not a regular file"):
        compared.to_html(tmp_path)
    with pytest.raises(FileNotFoundError):
        compared.to_html(tmp_path / "missing" / "r.html")
    assert not list(tmp_path.iterdir())


CHECK = CalibrationCheck(1000, 0.8, 0.81, 0.78, 0.84, 0.02, 0.01, 0.03, 0.05, 0.5, 0.5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "No sign that its probabilities are wrong: its mean confidence is 80.0%"),
        ({"accuracy": 0.83, "p_gap": 0.001}, "Slightly too cautious: "),
        ({"accuracy": 0.95, "p_gap": 0.0}, "Too cautious: "),
        ({"accuracy": 0.77, "p_gap": 0.001}, "Slightly too sure of itself: "),
        ({"accuracy": 0.6, "p_gap": 0.0}, "Too sure of itself: "),
        ({"p_ece": 0.0}, "Right on average, but not at every level of confidence"),
        (
            {"n_points": 20, "accuracy_lower": 0.5, "accuracy_upper": 0.9},
            "Too few points to say: .* so few points \\(20\\) leave .* between 50% and 90%",
        ),
    ],
)
def test_calibration_in_words(changes, words):
    sentence = calibration_finding(replace(CHECK, **changes))
    assert re.match(words, sentence)
    assert "by chance, and at most 0.050 in 99 of 100 cases." in sentence
    assert "calibration error is 0.020" in sentence


def curve(reg, criterion="cv", regs=(0.01, 0.1, 1.0, 10.0), scores=(-0.3, -0.2, -0.5, -0.9)):
    return RegCurve(np.array(regs), np.array([scores]), None, ("",), criterion, reg)


def test_choice_of_reg_in_words():
    how, scale = choice_findings(RegChoice(curve(0.1)))
    assert "of 4 values from 0.01 to 10" in how
    assert "(log loss 0.200 nats, 0.500 at reg = 1)" in how
    assert "10 times weaker" in scale
    assert "3.16 times larger" in scale
    assert "10 times stronger" in choice_findings(RegChoice(curve(10.0)))[1]
    assert "The choice agrees" in choice_findings(RegChoice(curve(1.0)))[1]
    assert "end of the range" not in how
    assert "end of the range" in choice_findings(RegChoice(curve(0.01)))[0]
    by_evidence = choice_findings(RegChoice(curve(0.1, "evidence", scores=(-90, -50, -60, -70))))
    assert "maximises the evidence" in by_evidence[0]
    assert "(log evidence -50.0 nats, -60.0 at reg = 1)" in by_evidence[0]
    own = choice_findings(RegChoice(curve(0.1), "mcmc", curve(0.01)))[2]
    assert "need not be best for the posterior" in own
    assert "best at reg = 0.01 (log loss 0.300 nats)" in own
    assert (
        "So it is for the posterior"
        in choice_findings(RegChoice(curve(0.1), "mcmc", curve(0.1)))[2]
    )


@pytest.mark.slow
def test_report_says_how_reg_was_chosen_and_whether_probabilities_are_right(tmp_path):
    compared = comparison(n_points=600)
    own = compare(
        {"mcmc at reg = 0.01": StandIn(SamplePrediction(np.zeros((8, 600, 3))), compared.classes)},
        np.zeros((600, 1)),
        compared.y_test,
    )
    choice = RegChoice(curve(0.1), "mcmc", curve(0.01), own)
    found = calibration_findings(compared, choice)
    assert list(found) == ["finite", "infinite", "mcmc", "mcmc at reg = 0.01"]
    # The first two are near the truth, whose noise is Gumbel's; the third is twice as wide; the
    # last knows nothing, and is calibrated in a way.
    assert found["mcmc"].startswith("Too cautious")
    assert "3.16 times as wide as at reg = 1" in found["mcmc"]
    assert "It answers for" not in found["finite"]
    assert "that of mcmc" in found["mcmc at reg = 0.01"]
    assert "is a loss" in found["mcmc at reg = 0.01"]
    assert "It answers for" not in calibration_findings(compared)["mcmc"]

    page = Page(report(tmp_path, compared, reg=choice))
    for sentence in (*found.values(), *choice_findings(choice)):
        assert " ".join(sentence.split()) in page.text
    assert "all with reg = 0.1, which cross-validation chose" in page.text
    assert page.text.index("reg = 1 is the Bayesian scale") < page.text.index("What was found")
    # One more reliability diagram, and two curves.
    assert len(page.all("img")) == len(Page(report(tmp_path, compared)).all("img")) + 3


def test_no_labels_no_verdict(tmp_path):
    compared = comparison(labelled=False)
    assert calibration_findings(compared, RegChoice(curve(0.1), "mcmc")) == {}
    page = Page(report(tmp_path, compared, reg=RegChoice(curve(0.1), "mcmc")))
    assert "Are the probabilities right" not in page.text
    assert "10 times weaker" in page.text
