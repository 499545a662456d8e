"""Uncertainty of other packages' ensembles: by SciPy's entropies, and in a comparison."""

import numpy as np
import pytest
from scipy.stats import entropy
from sklearn.datasets import load_wine
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

import ntk_uq as nuq
from ntk_uq import SamplePrediction, decompose

X, NUMBERS = load_wine(return_X_y=True)
NAMES = np.array(["barbera", "grignolino", "barolo"])[NUMBERS]
TRAIN, TEST = slice(0, None, 2), slice(1, None, 6)
SKEWED = np.concatenate([np.arange(0, 130, 2), [130, 140]])  # two points of the third class


def by_hand(probabilities):
    mean = np.mean(probabilities, axis=0)
    total, aleatoric = entropy(mean, axis=1), np.mean(entropy(probabilities, axis=2), axis=0)
    return total, aleatoric, total - aleatoric


@pytest.mark.parametrize(
    "ensemble",
    [
        RandomForestClassifier(5, random_state=0),
        ExtraTreesClassifier(300, random_state=0),
        BaggingClassifier(DecisionTreeClassifier(), 5, max_features=4, random_state=0),
        VotingClassifier(
            [("a", KNeighborsClassifier(3)), ("b", DecisionTreeClassifier())], voting="soft"
        ),
    ],
    ids=lambda ensemble: type(ensemble).__name__,
)  # fmt: skip
def test_ensembles_of_scikit_learn(ensemble):
    """Also where a member has not seen every class: the mean of the members is the ensemble's."""
    ensemble.fit(X[SKEWED], NAMES[SKEWED])
    total, aleatoric, epistemic = decompose(ensemble, X[TEST])
    np.testing.assert_allclose(total, entropy(ensemble.predict_proba(X[TEST]), axis=1), atol=1e-12)
    np.testing.assert_allclose(epistemic, total - aleatoric, atol=1e-12)
    assert epistemic.max() > 0.05


def test_lists_functions_and_arrays():
    members = [make_pipeline(StandardScaler(), LogisticRegression(C=c)).fit(X[TRAIN], NAMES[TRAIN])
               for c in (0.01, 1.0)]  # fmt: skip
    probabilities = np.array([member.predict_proba(X[TEST]) for member in members])
    for given in (
        (members, X[TEST]),
        ([member.predict_proba for member in members], X[TEST]),
        (probabilities,),
        (probabilities.astype(np.float32).tolist(),),
    ):
        for found, expected in zip(decompose(*given), by_hand(probabilities), strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-6)
    prediction = SamplePrediction.from_probabilities(probabilities)
    np.testing.assert_allclose(prediction.epistemic, by_hand(probabilities)[2], atol=1e-12)
    certain = SamplePrediction.from_probabilities([[[1.0, 0.0]], [[0.0, 1.0]]])
    np.testing.assert_allclose(certain.samples[0, 0, 1], np.log(1e-300))
    np.testing.assert_allclose(certain.epistemic, np.log(2))


@pytest.mark.parametrize(
    ("members", "points", "error", "message"),
    [
        (np.full((2, 3), 0.5), None, ValueError, r"shape \[S, m, C\]"),
        (np.full((2, 3, 1), 1.0), None, ValueError, "both columns"),
        (np.array([[[2.0, -1.0]]]), None, ValueError, "logits"),
        (np.array([[[0.7, 0.7]]]), None, ValueError, "sum to one"),
        ([[[0.5, 0.5]], [[0.5, 0.25, 0.25]]], None, ValueError, "one shape"),
        (np.full((2, 3, 2), 0.5), X, ValueError, "probabilities already"),
        ([len, len], None, ValueError, r"decompose\(members, X\)"),
        (LogisticRegression().fit([[0.0], [1.0]], [0, 1]), [[0.0]], TypeError, "holds no members"),
        (GradientBoostingClassifier(n_estimators=2).fit(X, NAMES), X, TypeError, "adds up scores"),
    ],
)
def test_refusals(members, points, error, message):
    with pytest.raises(error, match=message):
        decompose(members, points)


TREE = DecisionTreeClassifier(max_depth=2, random_state=0)
TWO = [("a", TREE), ("b", KNeighborsClassifier(5))]


@pytest.mark.parametrize("labels", [NAMES, NUMBERS, NUMBERS + 1], ids=["names", "codes", "others"])
@pytest.mark.parametrize(
    "ensemble",
    [
        OneVsRestClassifier(TREE),
        AdaBoostClassifier(n_estimators=5, random_state=0),
        StackingClassifier(TWO),
        VotingClassifier(TWO, voting="soft", weights=[2, 1]),
    ],
    ids=lambda ensemble: type(ensemble).__name__,
)
def test_what_does_not_average_its_members(ensemble, labels):
    ensemble.fit(X[TRAIN], labels[TRAIN])
    with pytest.raises(TypeError, match=f"{type(ensemble).__name__} are no plain average"):
        decompose(ensemble, X[TEST])


def test_probabilities_of_single_precision_have_their_mean():
    class Single(RandomForestClassifier):
        def predict_proba(self, X):
            return np.float32(super().predict_proba(X))

    forest = Single(5, random_state=0).fit(X[TRAIN], NAMES[TRAIN])
    assert decompose(forest, X[TEST]).epistemic.max() > 0.05


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([TREE, RidgeClassifier()], "Member 1 is a RidgeClassifier.*CalibratedClassifierCV"),
        (BaggingClassifier(RidgeClassifier(), 2), "Member 0 is a RidgeClassifier"),
        (VotingClassifier(TWO), 'predicts no probabilities.*voting="soft"'),
        (RandomForestRegressor(2), "Member 0 is a DecisionTreeRegressor"),
        (RidgeClassifier(), "RidgeClassifier holds no members"),
        (make_pipeline(StandardScaler(), TREE), "taken out of its pipeline"),
        (len, "builtin_function_or_method holds no members"),
        (nuq.NTKClassifier(reg=1.0, n_draws=2), r"predict_distribution\(X\) has total"),
    ],
)
def test_members_without_probabilities(members, message):
    for model in members if isinstance(members, list) else [members]:
        if hasattr(model, "fit"):
            model.fit(X[TRAIN], NUMBERS[TRAIN])
    with pytest.raises(TypeError, match=message):
        decompose(members, X[TEST])


def test_members_of_different_classes():
    one, other = (KNeighborsClassifier(1).fit(X[rows], NAMES[rows]) for rows in (TRAIN, slice(100)))
    with pytest.raises(ValueError, match="different classes"):
        decompose([one, other], X[TEST])


def test_a_prediction_is_compared(tmp_path):
    forest = RandomForestClassifier(20, random_state=0).fit(X[TRAIN], NAMES[TRAIN])
    trees = [tree.predict_proba(X[TEST]) for tree in forest.estimators_]
    net = nuq.NTKClassifier(nuq.MLP(depth=1), n_draws=8).fit(X[TRAIN] / X.std(axis=0), NAMES[TRAIN])
    given = SamplePrediction.from_probabilities(trees)
    methods = {"networks": net, "forest": given}
    comparison = nuq.compare(methods, X[TEST] / X.std(axis=0), NAMES[TEST])
    accuracy = np.mean(forest.predict(X[TEST]) == NAMES[TEST])
    assert comparison.table["accuracy"]["forest"] == accuracy
    assert comparison.differences == ()
    comparison.to_html(tmp_path / "report.html")
    assert "forest" in (tmp_path / "report.html").read_text("utf-8")
    both = {"a": given, "b": given}
    assert nuq.compare(both, X[TEST], NUMBERS[TEST]).classes.tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="one at 30 points; X_test has 89"):
        nuq.compare(both, X[TRAIN])
    short = SamplePrediction.from_probabilities(np.full((2, 30, 2), 0.5))
    with pytest.raises(ValueError, match="'forest' is of 2 classes"):
        nuq.compare({"networks": net, "forest": short}, X[TEST])
