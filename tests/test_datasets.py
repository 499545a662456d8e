import numpy as np
import pytest

from ntk_uq.datasets import SHIPPED, Dataset, load_dataset, split
from ntk_uq.tables.encoder import UnseenWarning


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_tables_split(name):
    dataset = load_dataset(name)
    parts = split(dataset, n_train=60)
    assert parts.X_train.shape == (60, dataset.X.shape[1])
    assert len(parts.y_test) == len(dataset.y) - 60
    assert set(parts.y_train) == set(dataset.y)
    np.testing.assert_allclose(parts.X_train.mean(axis=0), 0, atol=1e-12)


def test_images_follow_their_rows():
    dataset = load_dataset("digits")
    parts = split(dataset, n_train=300, n_test=100, seed=3)
    spread = dataset.X[:, 30].std()
    pixels = parts.images_test.reshape(100, 64)[:, 30]
    slope = np.polyfit(pixels, parts.X_test[:, 30], deg=1)[0]
    assert slope == pytest.approx(1 / spread, rel=0.1)


def test_the_seed_decides():
    iris = load_dataset("iris")
    first, again, other = (split(iris, n_train=30, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.X_train, again.X_train)
    assert not np.array_equal(first.y_train, other.y_train) or not np.array_equal(
        first.X_train, other.X_train
    )


def test_csv(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("a,label,b\n1,x,2.5\n3,y,4\n5,x,-6e1\n7,y,0\n")
    dataset = load_dataset(str(path), "label")
    np.testing.assert_array_equal(dataset.X, [[1, 2.5], [3, 4], [5, -60], [7, 0]])
    assert dataset.y.tolist() == ["x", "y", "x", "y"]
    assert dataset.name == "table.csv"


@pytest.mark.filterwarnings("ignore:The target .t. .* holds both:UserWarning")
@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (["0", "1", "2"], [0, 1, 2]),
        (["0.0", "1.0", "2.0"], [0, 1, 2]),
        (["True", "False", "True"], ["True", "False", "True"]),
        (["a", "1", "b"], ["a", "1", "b"]),
    ],
)
def test_targets(tmp_path, column, expected):
    path = tmp_path / "table.csv"
    path.write_text("x,t\n" + "".join(f"{i},{value}\n" for i, value in enumerate(2 * column)))
    assert load_dataset(str(path), "t").y.tolist() == 2 * expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"a,t\n", "no rows"),
        (b"a,b\n1,2\n", "no column 't'; it has a, b"),
        (b"t\n1\n", "no column beside the target"),
        (b"a,t\n1,0\n5%,1\n2,0\n3,1\n", "Column 'a' .* '5%' in line 3"),
        (b"a,t\n1,0\ninf,1\n3,1\n4,0\n", "an infinite value in line 3"),
        (b"a,t\n1,0\n2,\n", "target 't' .* is missing in line 3"),
        (b"a,t\n1,0.5\n2,1.5\n", "2 distinct real numbers"),
        (b"a,t\n1,0\n2,1,7,8\n", "not a table"),
        (b"a,t\n1,0,3\n2,1,7\n", "more values than its header"),
        (b"\xff\xfe\x00a", "not a text file"),
    ],
)
def test_bad_files(tmp_path, content, message):
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_dataset(str(path), "t")


def test_what_only_the_test_part_has_is_named_by_its_line(tmp_path):
    """The parts are shuffled, and their numbers of rows say nothing about the file."""
    path = tmp_path / "table.csv"
    kinds = np.where(np.arange(40) % 2, "a", "b").astype(object)
    kinds[30] = "c"
    path.write_text("x,kind,t\n" + "".join(f"{i * 7 % 11},{kinds[i]},{i % 2}\n" for i in range(40)))
    dataset = load_dataset(str(path), "t")
    with pytest.warns(UnseenWarning, match="'kind', holds in line 32 what no row"):
        split(dataset, n_train=10, seed=0)


def test_bad_sources(tmp_path):
    with pytest.raises(ValueError, match="neither a file nor one of digits"):
        load_dataset("mnist")
    with pytest.raises(ValueError, match="neither a file"):
        load_dataset(str(tmp_path), "t")
    with pytest.raises(ValueError, match="has its own target"):
        load_dataset("iris", "species")
    path = tmp_path / "wide.csv"
    path.write_text(",".join(f"c{i}" for i in range(20)) + "\n" + ",".join(["1"] * 20))
    with pytest.raises(ValueError, match=r"Name the column .* c0, .* and 8 more"):
        load_dataset(str(path))


def table(labels):
    return Dataset("table", "", np.arange(len(labels), dtype=float)[:, None], np.array(labels))


@pytest.mark.parametrize(
    ("labels", "sizes", "message"),
    [
        (["a"] * 5, {"n_train": 3}, r"one class only \(a\)"),
        (["a", "a", "a", "b"], {"n_train": 2}, "Class b .* one row only"),
        ([0, 1] * 10, {"n_train": 20}, "between 2 and 18"),
        ([0, 1] * 10, {"n_train": 1}, "between 2 and 18"),
        ([0, 1] * 10, {"n_train": 10, "n_test": 11}, "between 2 and 10"),
    ],
)
def test_bad_splits(labels, sizes, message):
    with pytest.raises(ValueError, match=message):
        split(table(labels), **sizes)
