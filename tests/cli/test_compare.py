"""``ntk-uq compare``: the report, and mistakes that are said before work begins."""

import re

import pytest
from example_tables import (
    run,
)

from ntk_uq.bayes import CostEstimate
from ntk_uq.cli.methods import METHODS, POSTERIORS

TABLE = "a,b,t\n" + "".join(f"{i % 7},{i % 5},{'xy'[i % 2]}\n" for i in range(60))
SMALL = ["--width", "16", "--members", "4", "--draws", "8", "--warmup", "20", "--samples", "20"]


def titles(methods):
    return [method.title for method in methods.values()]


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text(TABLE)
    return path


@pytest.fixture
def nothing_starts(monkeypatch):
    def started(*_):
        raise AssertionError("work began before the input was checked")

    monkeypatch.setattr("ntk_uq.cli.compare.estimator", started)
    monkeypatch.setattr("ntk_uq.cli.compare._choose_reg", started)


@pytest.mark.filterwarnings("ignore::ntk_uq.bayes.SamplingWarning")  # of so few draws
@pytest.mark.parametrize(
    ("choice", "compared"),
    [
        (
            ["--skip", "ensemble", "--skip", "nuts", "--with", "posterior"],
            [METHODS["infinite"], METHODS["gaussian"], POSTERIORS["posterior"]],
        ),
        pytest.param([], METHODS.values(), marks=pytest.mark.slow),
    ],
    ids=["infinite", "default"],
)
def test_compare_writes_a_report(choice, compared, tmp_path, table, capsys, monkeypatch):
    # None of the values that cross-validation of the trained network tries.
    monkeypatch.setattr("ntk_uq.selection.posterior._POSTERIOR_REGS", (0.5,))
    rows = "".join(f"{line},{'' if i % 9 == 0 else 'uv'[i % 2]},{i % 4 or ''}\n"
                   for i, line in enumerate(TABLE.splitlines()[1:]))  # fmt: skip
    table.write_text("a,b,t,kind,gaps\n" + rows)  # as fit takes it
    report = tmp_path / "out.html"
    monkeypatch.setattr("ntk_uq.cli.compare._N_TRAIN", 20)
    options = ["--data", table, "--target", "t", *SMALL, *choice, "-o", report]
    status, out, err = run(options, capsys)
    assert status == 0, err
    for method in compared:
        assert method.title in out
        assert any(method.title in line for line in err)
    assert str(report) in out
    told = r"20 of \d+ rows are trained on \(--n-train\); the methods are compared at \d+ others"
    assert re.fullmatch(told, err[0])
    text = report.read_text(encoding="utf-8")
    assert "table.csv" in text
    assert "7, of 4 columns: numbers are standardised" in text
    # One regularisation for all, chosen on the training points; and the posterior at its own.
    chosen = r"reg = [\d.e-]+, chosen from the training points by cross-validation"
    assert any(re.search(chosen, line) for line in err)
    assert "chosen from the training points alone by five-fold cross-validation" in text
    assert "reg = 1 is the Bayesian scale" in text
    assert "predicts held-out training points best at reg = " in text
    (own,) = [line.split(",")[0] for line in err if line.endswith("the posterior predicts best")]
    assert own == "Infinite (posterior) at reg = 0.5"
    assert own in out
    assert own in text
    assert "different problems" not in text
    assert {path.name for path in tmp_path.iterdir()} == {"out.html", "table.csv"}


@pytest.mark.slow
def test_methods_can_be_skipped(tmp_path, capsys):
    options = ["--data", "iris", "--n-train", 20, *SMALL, "-o", tmp_path / "out.html"]
    skipped = ["--skip", "nuts", "--skip", "ensemble", "--reg", "1"]
    status, out, err = run([*options, *skipped], capsys)
    assert status == 0, err
    assert "Infinite (exact)" in out
    assert not any("chosen" in line for line in err)
    page = (tmp_path / "out.html").read_text(encoding="utf-8")
    words = re.sub(r"base64,[^\"]*", "", page)  # pictures spell anything by chance
    assert "NUTS" not in out + words
    assert "reg = 1, as given" in words
    assert "How strong is the regularisation" not in words
    assert out.count("its mean confidence is") == 2


@pytest.mark.slow
# So wide a prior leaves members of 16 units short of a minimum, and first order far from exact.
@pytest.mark.filterwarnings("default::ntk_uq.ensemble.ConvergenceWarning")
@pytest.mark.filterwarnings("default::ntk_uq.analytic.FirstOrderWarning")
def test_approximate_posteriors_can_be_added(tmp_path, capsys):
    added = [option for name in POSTERIORS for option in ("--with", name)]
    skipped = [f"--skip={name}" for name in METHODS]
    options = ["--data", "iris", "--n-train", 20, *SMALL, "-o", tmp_path / "out.html"]
    status, out, err = run([*options, *skipped, *added, "--reg", "evidence"], capsys)
    assert status == 0, err
    page = (tmp_path / "out.html").read_text(encoding="utf-8")
    for name in titles(POSTERIORS):
        assert name in out
        assert name in page
    assert "different problems" not in page
    assert "it maximises the evidence" in page
    for estimator in ("BayesianClassifier(", "sampler=&#39;vi&#39;", "uncertainty=&#39;posterior"):
        assert estimator in page


# Arguments, and what the one line on standard error must say.
BAD_ARGUMENTS = [
    (["--data", "mnist"], "neither a file nor one of digits"),
    (["--data", "missing.csv", "--target", "t"], "neither a file nor one of"),
    (["--data", "{table}"], "Name the column .* a, b, t"),
    (["--data", "{table}", "--target", "z"], "no column 'z'; it has a, b, t"),
    (["--data", "iris", "--target", "t"], "has its own target"),
    (["--data", "iris", "--n-train", "148"], "choose between 3 and 147"),
    (["--data", "iris", "--n-train", "100", "--n-test", "51"], "choose between 3 and 50"),
    (["--n-train", "1"], "--n-train: '1' is no whole number of 2 or more"),
    (["--n-train", "many"], "--n-train: 'many' is no whole number"),
    (["--members", "0"], "--members: '0' is no whole number of 1 or more"),
    (["--members", "2.5"], "--members: '2.5' is no whole number"),
    (["--width", "0"], "--width"),
    (["--depth", "0"], "--depth"),
    (["--draws", "-3"], "--draws"),
    (["--chains", "0"], "--chains"),
    (["--samples", "1"], "--samples"),
    (["--seed", "-1"], "--seed"),
    (["--reg", "-1"], "--reg: '-1' is no positive number"),
    (["--reg", "0"], "--reg: '0' is no positive number"),
    (["--reg", "nan"], "--reg"),
    (["--reg", "inf"], "--reg"),
    (["--reg", "strong"], 'is no positive number, nor "cv" or "evidence"'),
    (["--skip", "mcmc"], "--skip: invalid choice: 'mcmc'"),
    (["--with", "nuts"], "--with: invalid choice: 'nuts'"),
    ([f"--skip={name}" for name in METHODS], "nothing to compare"),
    (["-o", "missing/report.html"], "folder missing does not exist"),
    (["-o", "."], "not a regular file"),
    (["--colour"], "unrecognized arguments: --colour"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD_ARGUMENTS, ids=range(len(BAD_ARGUMENTS)))
@pytest.mark.usefixtures("nothing_starts")
def test_bad_arguments(arguments, message, table, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    status, out, err = run([argument.format(table=table) for argument in arguments], capsys)
    assert status == 2
    assert out == ""
    assert len(err) == 1
    assert re.match(f"ntk-uq(?: compare)?: error: .*{message}", err[0]), err
    assert list(tmp_path.iterdir()) == [table]


BAD_TABLES = [
    ("", "is empty"),
    ("a,t\n", "no rows"),
    ("t\n0\n1\n", "no column beside"),
    (TABLE + "red,1,x\n", "text in some rows: 'red' in line 62"),
    (TABLE + "inf,1,x\n", "an infinite value in line 62"),
    (TABLE + "1,1,\n", "target 't' .* missing in line 62"),
    (TABLE.replace("y", "x"), r"one class only \(x\)"),
    (TABLE.replace("x", "0.5").replace("y", "1.5"), "2 distinct real numbers"),
    (TABLE + "1,1,z\n", "Class z .* one row only"),
]


@pytest.mark.parametrize(("content", "message"), BAD_TABLES, ids=range(len(BAD_TABLES)))
@pytest.mark.usefixtures("nothing_starts")
def test_bad_tables(content, message, tmp_path, capsys):
    path = tmp_path / "table.csv"
    path.write_text(content)
    options = ["--data", path, "--target", "t", "-o", tmp_path / "out.html"]
    status, _, err = run(options, capsys)
    assert status == 2
    assert len(err) == 1
    assert re.search(message, err[0])


@pytest.mark.usefixtures("nothing_starts")
def test_too_much_for_nuts_is_said_first(tmp_path, capsys, monkeypatch):
    hours = CostEstimate(seconds=7200.0, memory=2**31, n_steps=10**6)
    monkeypatch.setattr("ntk_uq.bayes.cost.estimate_cost", lambda *_, **__: hours)
    rows = "".join(f"{i % 7},{i % 5},{'xyz'[i % 3]}\n" for i in range(6000))
    path = tmp_path / "large.csv"
    path.write_text("a,b,t\n" + rows)
    options = ["--data", path, "--target", "t", "--n-train", 5000, "-o", tmp_path / "out.html"]
    status, _, err = run(options, capsys)
    assert status == 2
    assert len(err) == 1
    assert re.search(
        "NUTS on 5,000 points and 3 classes would take about 2 hours .* --skip nuts", err[0]
    )
