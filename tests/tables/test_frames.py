"""Frames name their rows, and mistakes are said at once."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from example_tables import Saw

from ntk_uq.tables import fit_table
from ntk_uq.tables.frames import model_frame


def test_frames_name_their_rows():
    table = pd.DataFrame({"a": ["1", "2", "x", "3"], "y": list("uvuv")}, index=list("klmn"))
    with pytest.raises(ValueError, match="'x' in row 'm'"):
        model_frame(table, "y", "classification", name="t")
    table = table.set_axis([7, 7, 8, 8])
    with pytest.raises(ValueError, match="'x' in row 8"):
        model_frame(table, "y", "classification", name="t")
    fitted = fit_table(table.assign(a=[1, 2, None, 3], b=list("cdcd")), "y", Saw())
    number, gap = fitted.estimator.X_[:, :2].T
    assert number[0] < number[1] == number[2] < number[3]  # the median of 1, 2 and 3
    assert gap.tolist() == [0, 0, 1, 0]
    with pytest.raises(ValueError, match="two columns with the name 'a'"):
        fit_table(pd.concat([table, table[["a"]]], axis=1), "y", Saw())


def test_what_is_wrong_with_a_table_is_said_at_once(tmp_path):
    """Without what takes seconds to import."""
    path = tmp_path / "t.csv"
    path.write_text("a,y\n" + "1,5%\n2,5%\n" * 30)
    good = tmp_path / "good.csv"
    good.write_text("a,y\n" + "1,u\n2,v\n" * 6)
    fit = ["fit", str(good), "--target", "y"]
    commands = [
        ["fit", str(path), "--target", "y"],
        ["compare", "--data", str(path), "--target", "a"],
        ["lazy", "--data", str(path), "--target", "a"],
        [*fit, "--threshold", "0.3", "--positive", "w"],
        [*fit, "--cost", "u:w=1"],
        [*fit, "--conformal", "0.99"],
        [*fit, "--weight", "z"],
        ["predict", str(good), str(good)],
    ]
    code = (
        "import sys; from ntk_uq.cli import main\n"
        f"for command in {commands!r}:\n"
        "    print(main(command), {'jax', 'sklearn', 'scipy', 'matplotlib'} & set(sys.modules))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    found = [line for line in ended.stdout.splitlines() if line.startswith("2 ")]
    assert found == ["2 set()"] * len(commands), ended.stderr
    assert ended.stderr.count("'5%' in line 2") == 3
    assert ended.stderr.count("no class 'w'") == 2
    assert "is no file of nuq.save" in ended.stderr


def test_rows_of_weight_zero_are_left_out():
    """Also of those that could be held out, and of what is asked of the rows that are left."""
    y, w = [*"abacabac", None], [1, 2, 3, 0, 1, 2, 3, 0, 0]
    table = pd.DataFrame({"x": np.arange(9.0), "y": y, "w": w})
    frame = model_frame(table, "y", "classification", weight="w", name="table")
    assert frame.features.index.tolist() == [0, 1, 2, 4, 5, 6]
    assert frame.y.tolist() == [*"abaaba"]
    assert frame.weights.tolist() == [1, 2, 3, 1, 2, 3]
    with pytest.raises(ValueError, match="'w' of table is 0 in every row"):
        model_frame(table.assign(w=0), "y", "classification", weight="w", name="table")
