"""Tables of numbers, categories and gaps, as the estimators take them."""

import warnings

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import ntk_uq as nuq
from ntk_uq import plots
from ntk_uq.calibration import TemperatureScaled
from ntk_uq.tables.encoder import UnseenWarning
from ntk_uq.tables.tails import CompressedTails

RNG = np.random.default_rng(0)
N = 60
TABLE = pd.DataFrame(
    {
        "size": RNG.normal(size=N),
        "mass": np.where(np.arange(N) % 7 == 0, np.nan, RNG.gamma(2.0, size=N)),
        "kind": np.where(np.arange(N) % 11 == 0, None, RNG.choice(list("xyz"), N)),
        "grade": pd.Categorical(RNG.integers(1, 4, N)),
        "sold": RNG.random(N) < 0.3,
    }
)
Y = np.where(TABLE["size"] + (TABLE["kind"] == "x") > 0.3, "yes", "no")
NET = nuq.MLP(width=8, depth=1)


def test_features_are_those_of_scikit_learn():
    """Numbers filled, scaled and compressed; indicators as they are."""
    encoder = nuq.TableEncoder().fit(TABLE)
    found = encoder.transform(TABLE)
    filled = TABLE[["size", "mass"]].fillna(TABLE["mass"].quantile(0.5, interpolation="lower"))
    scaled = StandardScaler().fit_transform(filled)
    np.testing.assert_allclose(found[:, :2], CompressedTails.of(scaled).transform(scaled))
    np.testing.assert_array_equal(found[:, 2], TABLE["mass"].isna())
    one_hot = OneHotEncoder(sparse_output=False).fit_transform(TABLE[["kind", "grade", "sold"]])
    np.testing.assert_array_equal(found[:, 3:], one_hot)
    assert encoder.get_feature_names_out().tolist() == [
        "size", "mass", "mass_missing", "kind_x", "kind_y", "kind_z", "kind_missing",
        "grade_1", "grade_2", "grade_3", "sold_False", "sold_True",
    ]  # fmt: skip
    frame = nuq.TableEncoder().set_output(transform="pandas").fit_transform(TABLE)
    assert frame.columns.tolist() == encoder.get_feature_names_out().tolist()


def test_weights_are_rows():
    weights = RNG.integers(0, 3, N)
    weighted = nuq.TableEncoder().fit(TABLE, sample_weight=weights).transform(TABLE[:20])
    rows = TABLE.iloc[np.repeat(np.arange(N), weights)]
    np.testing.assert_allclose(weighted, nuq.TableEncoder().fit(rows).transform(TABLE[:20]))


def test_empty_columns_are_left_out():
    """And said to be, as by the shell; what they hold later is not looked at."""
    empty = TABLE.assign(none=np.nan, nothing=pd.Series(dtype="category"))
    with pytest.warns(UserWarning, match="Columns of X are empty, and left out: none, nothing"):
        encoder = nuq.TableEncoder().fit(empty)
    with pytest.warns(UserWarning, match="X, column 'none', is empty: it is left out") as caught:
        model = nuq.NTKClassifier(reg=1.0, n_draws=4).fit(TABLE.assign(none=np.nan), Y)
    assert caught[0].filename == __file__
    plain = nuq.TableEncoder().fit(TABLE)
    assert encoder.get_feature_names_out().tolist() == plain.get_feature_names_out().tolist()
    later = empty.assign(none=2.0, nothing="a")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(encoder.transform(later), plain.transform(TABLE))
        model.predict(TABLE.assign(none=2.0))
    numbers = np.column_stack([TABLE["mass"], np.full(N, np.nan)])
    with pytest.warns(UserWarning, match="X, column 1, is empty"):
        encoder = nuq.TableEncoder().fit(numbers)
    np.testing.assert_allclose(
        encoder.traced(jnp.asarray(numbers)), encoder.transform(numbers), rtol=1e-5, atol=1e-6
    )
    with pytest.raises(ValueError, match="X is empty in all columns"):
        nuq.TableEncoder().fit(np.full((3, 2), np.nan))


def test_gaps_of_every_kind():
    """Of pandas' nullable types, and among objects."""
    for gap in (None, pd.NA, np.nan):
        mass = TABLE["mass"].astype(object).where(TABLE["mass"].notna(), gap)
        for column in (mass, mass.astype("Float64")):
            np.testing.assert_array_equal(
                nuq.TableEncoder().fit_transform(TABLE.assign(mass=column)),
                nuq.TableEncoder().fit_transform(TABLE),
            )


def test_estimators_take_the_table():
    """As a pipeline does whose network sees what the encoder makes of it."""
    direct = nuq.NTKClassifier(reg=1.0, n_draws=4).fit(TABLE, Y)
    piped = make_pipeline(nuq.TableEncoder(), nuq.NTKClassifier(nuq.MLP(), reg=1.0, n_draws=4))
    expected = piped.fit(TABLE, Y).predict_proba(TABLE)
    np.testing.assert_allclose(direct.predict_proba(TABLE), expected, atol=1e-9)
    assert direct.n_features_in_ == 5
    assert direct.feature_names_in_.tolist() == TABLE.columns.tolist()
    assert direct.encoder_.categories_["grade"].tolist() == [1, 2, 3]
    assert direct.__sklearn_tags__().input_tags.allow_nan
    assert not piped[-1].__sklearn_tags__().input_tags.allow_nan


def test_weights_of_a_table_with_gaps():
    weights = RNG.integers(0, 3, N)
    model = nuq.NTKClassifier(reg=1.0, n_draws=4)
    weighted = model.fit(TABLE, Y, sample_weight=weights).predict_proba(TABLE[:9])
    rows = RNG.permutation(np.repeat(np.arange(N), weights))
    repeated = model.fit(TABLE.iloc[rows], Y[rows]).predict_proba(TABLE[:9])
    np.testing.assert_allclose(weighted, repeated, atol=1e-12)


def test_saved_and_loaded(tmp_path):
    model = nuq.NTKRegressor(reg=1.0, noise=0.3).fit(TABLE, TABLE["size"])
    nuq.save(model, tmp_path / "m.ntk")
    loaded = nuq.load(tmp_path / "m.ntk")
    np.testing.assert_array_equal(loaded.predict(TABLE), model.predict(TABLE))


def test_categories_may_be_said():
    codes = TABLE[["size"]].assign(code=RNG.integers(0, 4, N))
    expected = nuq.TableEncoder().fit_transform(codes.astype({"code": "category"}))
    for chosen in (["code"], [1], [False, True]):
        encoder = nuq.TableEncoder(categorical_features=chosen)
        np.testing.assert_array_equal(encoder.fit_transform(codes), expected)
    array = nuq.TableEncoder(categorical_features=[1]).fit_transform(codes.to_numpy())
    np.testing.assert_array_equal(array, expected)


def test_the_encoder_of_an_estimator_is_one():
    own = nuq.NTKClassifier(reg=1.0, method="gaussian").fit(TABLE, Y).encoder_
    encoder = nuq.TableEncoder().fit(TABLE)
    assert own.get_feature_names_out().tolist() == encoder.get_feature_names_out().tolist()
    np.testing.assert_array_equal(own.transform(TABLE), encoder.transform(TABLE))


def test_columns_in_another_order_are_said_to_be():
    model = nuq.NTKClassifier(reg=1.0, method="gaussian").fit(TABLE, Y)
    for fitted in (model.predict, nuq.TableEncoder().fit(TABLE).transform):
        with pytest.raises(ValueError, match="must be in the same order"):
            fitted(TABLE[TABLE.columns[::-1]])


@pytest.mark.parametrize("gap", [None, np.nan, pd.NA])
@pytest.mark.parametrize("categories", [None, [1]], ids=["numbers", "categories"])
def test_gaps_of_an_array_of_objects(gap, categories):
    """As ``frame.to_numpy()`` makes one of pandas' nullable types."""
    values = np.array([[1.0, 2.0], [gap, 3.0], [2.0, gap], [3.0, 3.0]] * 2, dtype=object)
    plain = np.where(pd.isna(values), np.nan, values).astype(float)
    encoder = nuq.TableEncoder(categories)
    expected = encoder.fit_transform(plain)
    np.testing.assert_array_equal(encoder.fit_transform(values), expected)
    np.testing.assert_array_equal(encoder.transform(values[:2]), expected[:2])


def test_what_is_new_is_said():
    model = nuq.NTKClassifier(reg=1.0, n_draws=4).fit(TABLE, Y)
    new = TABLE[:5].assign(kind=["x", "q", "y", "q", "z"])
    with pytest.warns(UnseenWarning, match="column 'kind', holds in row 1 and 1 more what no row"):
        model.predict(new)
    new = TABLE[:5].assign(size=np.nan)
    with pytest.warns(UnseenWarning, match="column 'size', is empty in row 0, and was nowhere"):
        model.predict(new)
    # The rows as their user knows them, as TableModel names them too.
    new = new.set_index(pd.Index(["a", "b", "c", "d", "e"]))
    for seen_by in (model.predict, model.encoder_.transform):
        with pytest.warns(UnseenWarning, match="is empty in row 'a', and"):
            seen_by(new)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.predict(TABLE)


@pytest.mark.parametrize(
    ("estimator", "table", "message"),
    [
        (nuq.NTKClassifier(NET), TABLE, "TableEncoder"),
        (nuq.NTKClassifier(NET, categorical_features=["kind"]), TABLE, "architecture=None"),
        (nuq.NTKClassifier(categorical_features=["colour"]), TABLE, "no column 'colour'"),
        (nuq.NTKClassifier(categorical_features="all"), TABLE, 'takes "from_dtype"'),
        (nuq.NTKClassifier(categorical_features=[True]), TABLE, "has 1 truth values, and X 5"),
        (nuq.NTKClassifier(categorical_features=None), TABLE, "no number in column 'kind'"),
        (nuq.NTKClassifier(), TABLE.assign(a=np.inf), "infinity in column 'a'"),
        (nuq.NTKClassifier(), TABLE.assign(a=pd.Timestamp("2026-01-01")), "holds dates"),
        (
            nuq.NTKClassifier(),
            TABLE.assign(name=[f"n{i}" for i in range(N)]),
            "column 'name', holds 60 different texts",
        ),
    ],
)
def test_tables_that_cannot_be(estimator, table, message):
    with pytest.raises((ValueError, TypeError), match=message):
        estimator.fit(table, Y)


def test_tables_are_compared():
    """By estimators that encode them, and a pipeline that does the same."""
    quick = {"reg": 1.0, "uncertainty": "none", "method": "gaussian"}
    methods = {
        "direct": nuq.NTKClassifier(**quick).fit(TABLE, Y),
        "piped": make_pipeline(nuq.TableEncoder(), nuq.NTKClassifier(nuq.MLP(), **quick)),
    }
    methods["piped"].fit(TABLE, Y)
    compared = nuq.compare(methods, TABLE[:10], Y[:10])
    assert compared.differences == ()
    assert compared.distance("direct", "piped").tv.value == pytest.approx(0, abs=1e-9)


def test_checks_of_scikit_learn():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_estimator(nuq.TableEncoder())


def test_what_is_new_is_said_once():
    models = {
        name: nuq.NTKClassifier(reg=1.0, method="gaussian", random_state=0).fit(TABLE, Y)
        for name in ("one", "the same")
    }
    # Functions are drawn jointly at every third of the points, where rows have other numbers.
    new = pd.concat([TABLE] * 30, ignore_index=True)
    new["kind"] = new["kind"].astype(object).where(new.index != 6, "q")
    assert len(new) > 1000
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        nuq.compare(models, new)
    (found,) = caught
    assert "holds in row 6 what no row" in str(found.message)
    assert found.filename == __file__


def test_what_a_fold_has_not_seen_is_not_new():
    rare = TABLE.assign(kind=TABLE["kind"].astype(object).where(TABLE.index != 3, "q"))
    clf = nuq.NTKClassifier(reg=1.0, method="gaussian", random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TemperatureScaled(clf, cv=2).fit(rare, Y)


def test_a_card_says_once_what_is_new(tmp_path):
    model = nuq.NTKClassifier(reg=1.0, method="gaussian", random_state=0).fit(TABLE, Y)
    new = TABLE[:9].assign(size=np.nan)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        nuq.save(model, tmp_path / "model.ntk", held_out=(new, Y[:9]))
    assert [w.category for w in caught].count(UnseenWarning) == 1


def test_what_takes_numbers_refuses_categories():
    model = nuq.NTKClassifier(reg=1.0, n_draws=2, random_state=0).fit(TABLE, Y)
    with pytest.raises(ValueError, match="takes numbers, and the table has categories"):
        model.as_function()
    with pytest.raises(ValueError, match=r"A map needs X of shape \[n, 2\], got \(60, 5\)"):
        plots.plot_uncertainty_map(model, TABLE)
    with pytest.raises(ValueError, match="column 'kind'"):
        plots.plot_uncertainty_map(model, TABLE[["size", "kind"]])
    with pytest.raises(ValueError, match="n must be an integer"):
        model.memory(TABLE)
