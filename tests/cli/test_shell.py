"""The shell as a whole: exit statuses, help, and the page's examples."""

import re
import shlex
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from example_tables import run, shell

from ntk_uq.bayes.chains import THREAD_NAMES
from ntk_uq.cli import main

PAGE = Path(__file__).parents[2] / "docs" / "shell.md"


@pytest.mark.slow
def test_the_page_runs(folder, capsys):
    blocks = re.findall(r"```(python|sh)\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    for language, text in blocks:
        if language == "python":
            exec(text, {})
            continue
        for line in text.splitlines():
            program, *arguments = shlex.split(line)
            assert program == "ntk-uq"
            assert shell(*arguments) == 0, line
    out = capsys.readouterr().out
    assert "Against the target 'cultivar' in test.csv: accuracy 0.9" in out
    assert "cultivar,prediction,probability_class_0" in out


@pytest.mark.parametrize("command", ["fit", "predict"])
def test_help(command, capsys):
    assert shell(command, "--help") == 0
    out = capsys.readouterr().out
    assert "examples:" in out
    assert "exit status: 0" in out
    examples = re.findall(rf"ntk-uq {command} [^|\n]*", out.partition("examples:")[2])
    assert len(examples) >= 3


def test_help_loads_nothing():
    code = (
        "import sys; from ntk_uq.cli import main\n"
        "try: main(['fit', '--help'])\n"
        "except SystemExit: pass\n"
        "print({'jax', 'sklearn', 'pandas'} & set(sys.modules))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] == "set()"


def raising(error):
    def estimator(*_):
        raise error

    return estimator


def test_interrupt(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("ntk_uq.cli.compare.estimator", raising(KeyboardInterrupt()))
    status, _, err = run(["--data", "iris", "--reg", "1", "-o", tmp_path / "out.html"], capsys)
    assert status == 130
    assert "interrupted" in err[-1]
    assert not list(tmp_path.iterdir())


def test_interrupt_does_not_wait_for_a_long_draw(tmp_path, monkeypatch, capsys):
    """Python's end would: the process is ended where a chain's thread is alive."""
    statuses, ended = [], threading.Event()
    monkeypatch.setattr("os._exit", statuses.append)
    monkeypatch.setattr("ntk_uq.cli.compare.estimator", raising(KeyboardInterrupt()))
    chain = threading.Thread(target=ended.wait, name=f"{THREAD_NAMES}_0")
    chain.start()
    try:
        status, _, _ = run(["--data", "iris", "--reg", "1", "-o", tmp_path / "out.html"], capsys)
    finally:
        ended.set()
        chain.join()
    assert (status, statuses) == (130, [130])


def test_a_failure_of_ours_is_one_line_too(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("ntk_uq.cli.compare.estimator", raising(RuntimeError("out of\nmemory")))
    options = ["--data", "iris", "--reg", "1", "-o", tmp_path / "out.html"]
    status, _, err = run(options, capsys)
    assert status == 1
    assert "RuntimeError: out of memory" in err[-1]
    monkeypatch.setenv("NTK_UQ_TRACEBACK", "1")
    with pytest.raises(RuntimeError):
        main(["compare", *map(str, options)])


def test_help_has_examples(capsys):
    status, out, _ = run(["--help"], capsys)
    assert status == 0
    assert "examples:" in out
    for option in ("--data", "--target", "--reg", "--skip", "--output", "--seed"):
        assert option in out


def test_a_command_is_needed(capsys):
    with pytest.raises(SystemExit, match="2"):
        main([])
    assert "COMMAND" in capsys.readouterr().err


def test_help_is_quick():
    code = (
        "import sys; from ntk_uq.cli import main\n"
        "try: main(['compare', '--help'])\n"
        "except SystemExit: pass\n"
        "print({'jax', 'sklearn', 'pandas', 'matplotlib'} & set(sys.modules))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] == "set()"
