from ntk_uq._common.progress import progress_bar, progress_lines


def test_bar_counts_on_standard_error(capsys):
    with progress_bar("training", total=4, show=True) as progress:
        progress(1, 4)
        progress(4, 4)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "training: 100%" in captured.err
    assert "4/4" in captured.err


def test_total_may_be_corrected_on_the_way(capsys):
    with progress_bar("solving", total=10, show=True) as progress:
        progress(2, 2)
    assert "2/2" in capsys.readouterr().err


def test_nothing_is_shown_where_standard_error_is_no_terminal(capsys):
    with progress_bar("training", total=4) as progress:
        assert progress is None
    assert capsys.readouterr().err == ""


def test_lines_in_a_file(capsys, monkeypatch):
    """A line now and then, none of what is quick, and the end of what was long."""
    clock = iter([0.0, 1.0, 21.0, 30.0, 52.0, 55.0, 100.0, 101.0])
    monkeypatch.setattr("ntk_uq._common.progress.time.monotonic", lambda: next(clock))
    with progress_lines("ntk-uq fit"):
        with progress_bar("solving", total=4) as progress:
            for done in (0.5, 1, 1.5, 2, 4):
                progress(done, 4)
        with progress_bar("quick", total=1) as progress:
            progress(1, 1)
    assert capsys.readouterr().err.splitlines() == [
        "ntk-uq fit: solving: 25%, 21 s, about 63 s left",
        "ntk-uq fit: solving: 50%, 52 s, about 52 s left",
        "ntk-uq fit: solving: 100%, 55 s",
    ]
    with progress_bar("training", total=4) as progress:
        assert progress is None
