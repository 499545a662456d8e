"""Choosing reg: the evidence against dense formulas and differences, held-out scores by hand."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, stats
from sklearn import datasets

from ntk_uq._common.solver import solve_dual
from ntk_uq.analytic import gaussian_predictor
from ntk_uq.likelihoods import Bernoulli, Categorical, Gaussian, Poisson, Weighted
from ntk_uq.networks.architecture import Kernels
from ntk_uq.networks.convnet import ConvNet
from ntk_uq.networks.embedding import FeatureEmbedding
from ntk_uq.networks.infinite_width import mlp_kernels
from ntk_uq.networks.mlp import MLP
from ntk_uq.predictions import GaussianPrediction
from ntk_uq.selection import (
    choose,
    cross_validate,
    cross_validate_posterior,
    log_evidence,
    maximise_evidence,
)
from ntk_uq.selection.choice import _candidates
from ntk_uq.selection.folds import _rows_and_folds

pytestmark = pytest.mark.double_precision

N, C = 14, 3
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 3))
ONE_HOT = np.eye(C)[np.digitize(X[:, 0], [-0.5, 0.5])]
KERNELS = MLP(w_std=1.3, b_std=0.4).kernels(X)
CASES = [
    (Categorical(), ONE_HOT),
    (Bernoulli(), ONE_HOT),
    (Poisson(), RNG.poisson(2.0, size=(N, C)).astype(float)),
    (Gaussian(0.3), RNG.normal(size=(N, C))),
]


@pytest.mark.cases(1)
@pytest.mark.parametrize(("likelihood", "y"), CASES, ids=lambda v: type(v).__name__)
@pytest.mark.parametrize("reg", [0.02, 1.0, 50.0])
def test_log_evidence_is_the_dense_laplace_formula(likelihood, y, reg):
    value = log_evidence(jnp.asarray(KERNELS.ntk), jnp.asarray(y), reg, likelihood)
    ntk = jnp.asarray(KERNELS.ntk)
    mode = solve_dual(ntk, reg, jnp.asarray(y), jnp.zeros((1, N, C)), likelihood).latents[0]
    hessian = jax.hessian(lambda f: -jnp.sum(likelihood.log_density(f, y)))(mode)
    prior = np.kron(KERNELS.ntk / reg, np.eye(C))
    flat = np.asarray(mode).ravel()
    expected = (
        float(jnp.sum(likelihood.log_density(mode, y)))
        - 0.5 * flat @ np.linalg.solve(prior, flat)
        - 0.5 * np.linalg.slogdet(np.eye(N * C) + prior @ hessian.reshape(N * C, -1))[1]
    )
    np.testing.assert_allclose(value, expected, atol=1e-5)


def test_log_evidence_is_exact_for_a_gaussian_likelihood():
    _, y = CASES[-1]
    value = log_evidence(jnp.asarray(KERNELS.ntk), jnp.asarray(y), 0.7, Gaussian(0.3))
    density = stats.multivariate_normal(cov=KERNELS.ntk / 0.7 + 0.09 * np.eye(N))
    np.testing.assert_allclose(value, sum(density.logpdf(column) for column in y.T), rtol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize(("likelihood", "y"), CASES, ids=lambda v: type(v).__name__)
def test_derivatives_against_differences(likelihood, y):
    """Through reg, the kernel's parameters, and a scale per feature; the mode moves with all."""

    def evidence(p):
        scales, w_std, b_std, reg = jnp.exp(p[:3]), *jnp.exp(p[3:])
        points = jnp.asarray(X) * scales
        ntk = mlp_kernels(points, w_std=w_std, b_std=b_std, depth=2, activation="relu").ntk
        return log_evidence(ntk, jnp.asarray(y), reg, likelihood)

    at = jnp.array([0.1, -0.2, 0.0, 0.3, -0.9, -0.4])
    gradient = jax.grad(evidence)(at)
    step = 1e-4
    differences = [
        (evidence(at + step * e) - evidence(at - step * e)) / (2 * step) for e in np.eye(6)
    ]
    np.testing.assert_allclose(gradient, differences, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("noise", [1e-1, 1e-3])
@pytest.mark.parametrize("reg", [1.0, 1e-4])
def test_derivatives_where_rows_come_twice(noise, reg):
    """Equal rows with equal targets: each once with half the variance, but for a constant.

    There the derivative of the Gaussian evidence is that of a textbook, well-conditioned
    (Rasmussen & Williams, eq. 5.9); here the kernel is singular and the noise a trifle.
    """
    y = np.sin(X[:, :1])

    def kernel(logs):
        points = jnp.asarray(X) * jnp.exp(logs)
        return mlp_kernels(points, w_std=1.3, b_std=0.4, depth=1, activation="relu").ntk

    def twice(logs):
        ntk = jnp.tile(kernel(logs), (2, 2))
        return log_evidence(ntk, jnp.asarray(np.r_[y, y]), reg, Gaussian(noise))

    at = jnp.zeros(3)
    prior = np.asarray(kernel(at)) / reg
    inverse = np.linalg.inv(prior + 0.5 * noise**2 * np.eye(N))
    weight = np.outer(inverse @ y, inverse @ y) - inverse
    change = np.asarray(jax.jacfwd(kernel)(at)) / reg
    expected = 0.5 * np.einsum("ij,ijk->k", weight, change)
    # Of the factorised matrix, rounding moves eigenvalues 1 of I + S / noise^2 by this share.
    condition = np.finfo(float).eps * 2 * N * np.trace(prior) / noise**2
    np.testing.assert_allclose(jax.grad(twice)(at), expected, atol=1e-4 + 10 * condition)


@pytest.mark.slow
def test_derivatives_where_rows_come_twice_for_classes():
    """Each row twice, or once with weight 2."""
    y = jnp.asarray(ONE_HOT)

    def kernel(logs):
        points = jnp.asarray(X) * jnp.exp(logs)
        return mlp_kernels(points, w_std=1.3, b_std=0.4, depth=1, activation="relu").ntk

    def twice(logs):
        return log_evidence(
            jnp.tile(kernel(logs), (2, 2)), jnp.tile(y, (2, 1)), 1e-3, Categorical()
        )

    def once(logs):
        weighted = Weighted(Categorical(), jnp.full(N, 2.0))
        return log_evidence(kernel(logs), y, 1e-3, weighted)

    (value, slope), (expected, along) = (jax.value_and_grad(f)(jnp.zeros(3)) for f in (twice, once))
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(slope, along, atol=1e-4)


@pytest.mark.slow
def test_what_cannot_be_solved_has_no_score():
    """Equal rows, opposite labels, a kernel of 1e6 and reg = 1e-8: rounding hides all."""
    ntk, y = (
        jnp.asarray(1e6 * np.tile(KERNELS.ntk, (2, 2))),
        jnp.asarray(np.r_[ONE_HOT, 1 - ONE_HOT]),
    )
    assert np.isnan(log_evidence(ntk, y, 1e-8, Bernoulli()))
    both = Kernels(np.asarray(ntk), np.asarray(ntk))
    folds = [np.array([0]), np.array([1])]
    for modes in (["none"], ["posterior"]):
        scores = cross_validate(both, y, [1e-8, 1e8], Bernoulli(), modes, folds)[:, 0, :2]
        np.testing.assert_array_equal(np.isnan(scores), [[True, True], [False, False]])


def test_the_search_takes_steps_that_stay_where_there_is_an_evidence():
    """From a start that is steep, in a domain that ends a factor of two away on either side."""

    def evidence(p):
        steep = -1e5 * (jnp.log(p["a"]) - 0.5) ** 2 - (jnp.log(p["b"]) + 0.3) ** 2
        return jnp.where(jnp.maximum(*map(jnp.abs, map(jnp.log, p.values()))) < 0.7, steep, jnp.nan)

    best = maximise_evidence(evidence, {"a": 1.0, "b": 1.0})
    assert best.converged
    assert best.moved
    np.testing.assert_allclose(np.log(best.parameters["a"]), 0.5, atol=1e-3)
    assert best.value > -0.02
    least = maximise_evidence(evidence, {"a": 1.0, "b": 1.0}, lower={"a": 0.9, "b": 0.9})
    np.testing.assert_allclose(least.parameters["b"], 0.9)
    nowhere = maximise_evidence(lambda p: jnp.sqrt(0 * p["a"]) + p["a"], {"a": 1.0})
    assert not nowhere.moved
    with pytest.raises(ValueError, match="where the search starts"):
        maximise_evidence(lambda p: p["a"] * jnp.nan, {"a": 1.0})


@pytest.mark.slow
def test_maximise_evidence_finds_the_maximum_of_a_scan():
    ntk, y = jnp.asarray(KERNELS.ntk), jnp.asarray(ONE_HOT)

    def evidence(p):
        return log_evidence(ntk, y, p["reg"], Categorical())

    seen = []
    best = maximise_evidence(evidence, {"reg": 0.2}, progress=lambda i, n: seen.append((i, n)))
    scan = optimize.minimize_scalar(
        lambda v: -float(evidence({"reg": np.exp(v)})), bounds=(-6, 6), options={"xatol": 1e-6}
    )
    assert best.converged
    np.testing.assert_allclose(best.value, -scan.fun, atol=1e-5)
    np.testing.assert_allclose(np.log(best.parameters["reg"]), scan.x, atol=1e-2)
    assert seen[0] == (1, 50)


@pytest.mark.cases(1)
@pytest.mark.parametrize("noise", [None, 0.3])
def test_cross_validation_is_refitting(noise):
    """Against fitting each fold afresh, at its regularisation alone."""
    likelihood = Categorical() if noise is None else Gaussian(noise)
    y = ONE_HOT if noise is None else CASES[-1][1]
    regs, modes = [0.1, 3.0, 0.5], ["posterior", "none", "initialization"]
    folds = [np.array([0, 3, 5, 9, 12]), np.array([1, 2, 6, 13]), np.array([4, 7, 8, 10])]
    scores = cross_validate(KERNELS, y, regs, likelihood, modes, folds)
    assert np.all(np.isnan(scores[:, :, 11]))
    fold = folds[0]
    train = np.setdiff1d(np.arange(N), fold)
    inner = Kernels(*(jnp.asarray(k[np.ix_(train, train)]) for k in KERNELS))
    cross = Kernels(*(jnp.asarray(k[np.ix_(fold, train)]) for k in KERNELS))
    own = Kernels(*(jnp.asarray(np.diag(k)[fold]) for k in KERNELS))
    for r, reg in enumerate(regs):
        for u, mode in enumerate(modes):
            predictor = gaussian_predictor(inner, y[train], reg, likelihood, mode)
            mean, cov = (np.asarray(a) for a in predictor.moments(cross, own))
            if noise is None:
                p = GaussianPrediction(mean, cov).proba()
                expected = np.log(np.sum(p * y[fold], axis=1))
            else:
                expected = [
                    stats.multivariate_normal(m, s + noise**2 * np.eye(C)).logpdf(t)
                    for m, s, t in zip(mean, cov, y[fold], strict=True)
                ]
            # Modes are found to a thousandth of a posterior standard deviation.
            np.testing.assert_allclose(scores[r, u, fold], expected, atol=2e-3)


@pytest.mark.slow
def test_cross_validation_of_the_mode_alone():
    """The fast way for "none" against the general one."""
    folds = [np.array([0, 3, 5, 9]), np.array([1, 2, 6, 13]), np.array([4, 7, 8, 10])]
    args = (KERNELS, ONE_HOT, [0.01, 0.5], Categorical())
    alone = cross_validate(*args, ["none"], folds)[:, 0]
    together = cross_validate(*args, ["none", "posterior"], folds)[:, 0]
    # Either is within a thousandth of a posterior standard deviation of the mode.
    np.testing.assert_allclose(alone, together, atol=2e-3)


def test_a_scan_gives_up_where_weaker_regularisations_lose():
    """What it visits has the scores of a whole scan, and what it does not is far below the best."""
    folds = [np.arange(N)[i::3] for i in range(3)]
    noise = np.eye(C)[np.random.default_rng(0).integers(C, size=N)]
    args = (KERNELS, noise, np.logspace(-4, 2, 13), Categorical(), ["none"], folds)
    whole, part = cross_validate(*args), cross_validate(*args, give_up=0.03)
    visited = ~np.isnan(part[:, 0, 0])
    assert visited[-2:].all()
    assert not visited[:2].any()
    np.testing.assert_array_equal(visited, np.sort(visited))  # from strong to weak
    np.testing.assert_array_equal(part[visited], whole[visited])
    means = whole.mean(axis=(1, 2))
    assert means[~visited].max() < means.max() - 0.03


def test_a_coarse_scan_looks_closer_where_it_is_best():
    """Every second regularisation, and those next to the best, with the scores of a whole scan."""
    folds = [np.arange(N)[i::3] for i in range(3)]
    for regs in (np.logspace(-1, 2, 13), np.logspace(1, 2, 13), np.logspace(-1, -0.5, 12)):
        args = (KERNELS, ONE_HOT, regs, Categorical(), ["none"], folds)
        whole, part = (cross_validate(*args, coarsely=coarsely)[:, 0] for coarsely in (False, True))
        visited = ~np.isnan(part[:, 0])
        coarse = np.arange(len(regs))[::-1][::2]  # from the strongest on
        best = coarse[np.argmax(part.mean(axis=1)[coarse])]
        beside = [r for r in (best - 1, best + 1) if 0 <= r < len(regs)]
        assert set(np.flatnonzero(visited)) == {*coarse, *beside}
        # Either is within a thousandth of a posterior standard deviation of the mode, which is
        # sqrt(Theta / reg) at most, some 5.
        np.testing.assert_allclose(part[visited], whole[visited], atol=2e-2)


def chosen_by_cv(points, labels, seed=0):
    one_hot = np.eye(labels.max() + 1)[labels]
    rng = np.random.default_rng(seed)
    return choose(rng, MLP(depth=1), points, one_hot, Categorical(), "cv", uncertainty="none")


@pytest.mark.parametrize(
    ("points", "labels"),
    [
        ([[-1.0], [1.0]], [0, 1]),
        ([[-1.0], [-1.0], [1.0], [1.0]], [0, 0, 1, 1]),
        ([[-1.0], [0.0], [1.0]], [0, 1, 2]),
    ],
    ids=["a point a class", "copies", "three"],
)
def test_where_nothing_can_be_held_out_reg_is_one(points, labels):
    with pytest.warns(UserWarning, match=r"no point has another that differs: reg=1.0"):
        choice = chosen_by_cv(np.array(points), np.array(labels))
    assert choice.reg == choice.curve.reg == 1.0
    assert np.isnan(choice.curve.scores).all()


def test_a_class_of_one_point_is_trained_on_and_not_scored():
    """One held-out point each, by hand: all that is left where four points are four folds."""
    points, labels = np.array([[-1.0, 0], [-0.8, 1], [1.2, 0], [0.3, 2]]), np.array([0, 0, 1, 2])
    curve = chosen_by_cv(points, labels).curve
    one_hot, ntk = np.eye(3)[labels], MLP(depth=1).kernels(points).ntk
    for reg, score in zip(curve.regs, curve.scores[0], strict=True):
        held_out = []
        for i in (0, 1):
            rest = np.delete(np.arange(4), i)
            mode = solve_dual(
                jnp.asarray(ntk[np.ix_(rest, rest)]), reg, jnp.asarray(one_hot[rest]),
                jnp.zeros((1, 3, 3)), Categorical(),
            )  # fmt: skip
            f = jnp.asarray(ntk[i, rest]) @ mode.alpha[0]
            held_out.append(float(Categorical().log_density(f[None], one_hot[i][None])[0]))
        # Cross-validation solves to 1e-6 nats: latents to a thousandth of a standard deviation.
        assert score == pytest.approx(np.mean(held_out), abs=5e-3)


def test_copies_of_a_point_do_not_predict_it():
    """Labels without any pattern: the more regularisation the better, copies or not."""
    rng = np.random.default_rng(0)
    points, labels = rng.normal(size=(30, 3)), rng.integers(2, size=30)
    once = chosen_by_cv(points, labels)
    twice = chosen_by_cv(np.repeat(points, 2, axis=0), np.repeat(labels, 2))
    assert once.reg >= 1
    assert twice.reg >= 1


@pytest.mark.slow
def test_posterior_is_cross_validated_by_its_own_draws(monkeypatch):
    # Of Gaussian noise the posterior and its predictions are known: here for a ridge regression.
    monkeypatch.setattr("ntk_uq.selection.posterior._CV_DRAWS", 4000)
    monkeypatch.setattr("ntk_uq.selection.posterior._POSTERIOR_REGS", (0.5,))
    noise, reg = 0.8, 0.5
    x = np.linspace(-2, 2, 20)[:, None]
    y = np.sin(2 * x) + noise * np.random.default_rng(1).normal(size=(20, 1))
    network = MLP(depth=1)
    curve = cross_validate_posterior(
        np.random.default_rng(0), network, x, y, Gaussian(jnp.asarray([noise]))
    )
    s = network.kernels(x).ntk / reg
    rows, folds, _ = _rows_and_folds(np.random.default_rng(0), x, y, 150)
    assert list(rows) == list(range(20))
    total, variance = 0.0, 0.0
    for fold in folds:
        train = np.setdiff1d(np.arange(20), fold)
        gain = s[np.ix_(fold, train)] @ np.linalg.inv(
            s[np.ix_(train, train)] + noise**2 * np.eye(16)
        )
        mean = (gain @ y[train])[:, 0]
        var = np.diag(s)[fold] - np.sum(gain * s[np.ix_(fold, train)], axis=1)
        density = stats.norm.pdf(y[fold, 0], mean, np.sqrt(var + noise**2))
        total += np.log(density).sum()
        # E p^2 over draws, for the error of a mean over 4000 of them.
        square = stats.norm.pdf(y[fold, 0], mean, np.sqrt(var + noise**2 / 2))
        square /= 2 * np.sqrt(np.pi) * noise
        variance += np.sum(square / density**2 - 1) / 4000
    # The points of a fold share their draws: their errors may add up.
    assert abs(curve.scores[0, 0] - total / 20) < 5 * np.sqrt(4 * variance) / 20
    assert curve.reg == reg


@pytest.mark.slow
def test_posterior_of_noise_wants_a_strong_regularisation():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 2)), np.eye(2)[rng.integers(2, size=60)]
    curve = cross_validate_posterior(rng, MLP(depth=1), x, y, Categorical())
    # Nothing weaker predicts labels that depend on nothing better than a fair coin.
    assert curve.reg == 100
    assert curve.regs.tolist() == sorted(curve.regs)
    assert curve.regs.max() == 100


def test_posteriors_are_sought_where_the_evidence_is_high():
    """Of wine, where modes predict best with three layers, whose posteriors are wide."""
    x, labels = datasets.load_wine(return_X_y=True)
    x, y = ((x - x.mean(axis=0)) / x.std(axis=0))[1::5], np.eye(3)[labels[1::5]]
    of_problem = MLP(), x, y, Categorical(), "cv"
    curves = [
        choose(np.random.default_rng(0), *of_problem, uncertainty=which, tune=("depth",)).curve
        for which in ("none", "posterior")
    ]
    names = [np.array(curve.names)[np.argsort(-np.nanmax(curve.scores, 1))] for curve in curves]
    assert "depth 0" not in names[0][:3]
    assert names[1][0] == "depth 0"
    deep = cross_validate(
        MLP(depth=2).kernels(x), y, curves[1].regs, Categorical(), ["posterior"],
        _rows_and_folds(np.random.default_rng(0), x, y, len(x))[1],
    )  # fmt: skip
    assert np.nanmax(curves[1].scores) > np.nanmax(deep[:, 0].mean(axis=1)) + 0.05


@pytest.mark.cases(1)
@pytest.mark.parametrize("uncertainty", ["none", "posterior"])
def test_progress_of_a_choice_rises_to_its_end(uncertainty):
    """Over all networks, in whatever order they finish, and over both scans of a posterior."""
    seen = []
    rng, labels = np.random.default_rng(0), np.arange(N) % 2
    choose(
        rng, MLP(), X, np.eye(2)[labels], Categorical(), "cv", uncertainty=uncertainty,
        tune=("depth",), progress=lambda done, total: seen.append(done / total),
    )  # fmt: skip
    assert len(seen) > 4 * 2  # four networks, each more than once
    assert np.all(np.diff(seen) >= 0)
    assert seen[-1] == 1


def test_features_are_shown_beside_their_scores(monkeypatch):
    """Where units hide what matters and the evidence gains; reg and noise are at its maximum."""
    monkeypatch.setattr("ntk_uq.selection.choice._SCALES_OF", 100)  # rough units alone
    rng = np.random.default_rng(0)
    logs = rng.normal(size=(40, 2))
    y = np.sin(2 * logs[:, :1]) + logs[:, 1:] + 0.3 * rng.normal(size=(40, 1))
    known, net = np.exp(2 * logs) / 10, MLP(depth=1)

    def evidence(choice, reg, noise):
        K = choice.architecture.kernels(known).ntk / reg + noise**2 * np.eye(40)
        return stats.multivariate_normal(cov=K).logpdf(y[:, 0])

    found, without = (
        choose(
            np.random.default_rng(0), net, known, y, Gaussian(np.ones(1)), "evidence",
            tune=("noise",), further=further,
        )
        for further in (True, False)
    )  # fmt: skip
    assert not found.architecture.beside  # powers of the features, and their scores beside these
    assert found.architecture.network.beside
    assert without.architecture == net
    noise = float(found.likelihood.noise[0])
    best = evidence(found, found.reg, noise)
    assert best > evidence(without, without.reg, float(without.likelihood.noise[0])) + 5
    for changes in ((1.1, 1.0), (0.9, 1.0), (1.0, 1.1), (1.0, 0.9)):
        assert best > evidence(found, found.reg * changes[0], noise * changes[1])


def test_features_are_shown_alone_where_the_evidence_is_higher():
    rng = np.random.default_rng(0)
    known = rng.standard_cauchy(size=(40, 2)).clip(-20, 20)
    y = known[:, :1] + 0.1 * rng.normal(size=(40, 1))
    net = MLP(depth=1)
    choice = choose(
        np.random.default_rng(0), net, known, y, Gaussian(np.full(1, 0.1)), "evidence", further=True
    )
    # Smooth units have biases that climb the evidence.
    rough = {"depth": 1, "activation": net.activation, "b_std": net.b_std}
    assert replace(choice.architecture, **rough) == net


def test_one_network_knows_little_but_distances():
    """In the NNGP kernel nothing else: that of half the squared distance, w^2 / d times."""
    (waves,) = (
        network
        for name, network in _candidates(MLP(), ("depth", "embedding"), "cv").items()
        if name == "waves of all features"
    )
    points = np.random.default_rng(0).normal(size=(6, 4))
    squared = ((points[:, None] - points) ** 2).sum(axis=-1)
    between = waves.kernels(points).nngp - waves.b_std**2  # that of the read-out
    # Waves of both phases, exp(-2 b^2), are all that is left out.
    expected = waves.w_std**2 / 2 * np.exp(-(waves.w_std**2) * squared / 8)
    np.testing.assert_allclose(between, expected, atol=waves.w_std**2 * np.exp(-2 * waves.b_std**2))
    # An architecture of another kind has no such twin.
    given = _candidates(FeatureEmbedding(MLP(depth=1)), ("embedding",), "evidence")
    assert "waves of all features" not in given


def test_images_have_an_evidence_too():
    rng = np.random.default_rng(0)
    images, net = rng.normal(size=(12, 3, 3, 1)), ConvNet(depth=1)
    y = images.mean(axis=(1, 2)) + 0.1 * rng.normal(size=(12, 1))
    found = choose(np.random.default_rng(0), net, images, y, Gaussian(0.1), "evidence")
    assert found.architecture == net
    ntk = net.kernels(images).ntk

    def evidence(reg):
        return stats.multivariate_normal(cov=ntk / reg + 0.01 * np.eye(12)).logpdf(y[:, 0])

    assert evidence(found.reg) > max(evidence(0.8 * found.reg), evidence(1.25 * found.reg))
