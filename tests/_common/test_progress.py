from ntk_uq._common.progress import progress_bar


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
