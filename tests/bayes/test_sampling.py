"""Posterior sampling against quadrature, conjugate closed forms and ArviZ itself."""

import threading

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arviz_stats.base import array_stats
from scipy import stats
from scipy.special import softmax

from ntk_uq import MLP, bayes
from ntk_uq._common.solver import solve_dual
from ntk_uq.bayes import chains
from ntk_uq.bayes.samplers import ChainSampler, DrawSampler, samplers_of
from ntk_uq.likelihoods import Bernoulli, Categorical, Gaussian, Poisson, Weighted

pytestmark = pytest.mark.double_precision


def squared_exponential(x1, x2):
    return 2.0 * np.exp(-0.5 * (x1[:, None] - x2) ** 2)


X = np.array([-1.5, -0.4, 0.3, 1.0, 2.1])
S = squared_exponential(X, X)
Y = np.random.default_rng(0).normal(size=(5, 2))
NOISE = 0.6
KEY = jax.random.key(9)
SHORT = {"num_warmup": 300, "num_samples": 500, "num_chains": 2}
LONG = {"num_warmup": 300, "num_samples": 2000, "num_chains": 2}
every_chain = pytest.mark.parametrize("sampler", samplers_of(ChainSampler))


@pytest.fixture(scope="module")
def conjugate():
    """Draws whose exact distribution is known: Gaussian process regression."""
    with jax.enable_x64(True):
        return bayes.sample_latents(jax.random.key(0), S, Y, Gaussian(NOISE), **LONG)


def draws_of(latents, *, step=0.1, **stats):
    """Draws made by hand under the prior N(0, I): latents [chain, draw, n, C]."""
    shape = latents.shape[:2]
    n_steps = np.full(shape, 7)
    moving = np.random.default_rng(0).normal(size=shape)
    sample_stats = {
        "diverging": np.zeros(shape, bool),
        "acceptance_rate": np.full(shape, 0.8),
        "n_steps": n_steps,
        "tree_depth": np.full(shape, 3),
        "reached_max_treedepth": np.zeros(shape, bool),
        "step_size": np.full(shape, step),
        "energy": moving,
        "lp": moving,
    } | stats
    prior = bayes.GaussianProcessPrior.from_covariance(jnp.eye(latents.shape[2]))
    return bayes.PosteriorDraws(prior, latents, latents, sample_stats, seconds=1.0)


def z_scores(values, expected):
    """(Mean - expected) / Monte-Carlo standard error of values [chain, draw, ...]."""
    ess = array_stats.ess(values, chain_axis=0, draw_axis=1, method="mean")
    return (values.mean((0, 1)) - expected) / (values.std((0, 1)) / np.sqrt(ess))


def assert_within_standard_errors(values, expected, level=1e-3):
    """Every mean is as expected, at a familywise level by Bonferroni's bound."""
    z = np.abs(z_scores(values, expected))
    assert z.max() < stats.norm.isf(level / 2 / z.size), z


def test_conjugate_posterior(conjugate):
    gain = S @ np.linalg.inv(S + NOISE**2 * np.eye(5))
    mean, cov = gain @ Y, S - gain @ S
    assert_within_standard_errors(conjugate.latents, mean)
    centred = conjugate.latents - mean
    products = np.einsum("sdic,sdjc->sdcij", centred, centred)
    assert_within_standard_errors(products, np.broadcast_to(cov, (2, 5, 5)))
    # The two outputs are independent a posteriori.
    assert_within_standard_errors(centred[..., 0] * centred[..., 1], np.zeros(5))


def test_whitened_variables_give_the_latents(conjugate):
    factor = np.linalg.cholesky(S)
    np.testing.assert_allclose(conjugate.latents, factor @ conjugate.whitened, rtol=1e-10)


@pytest.mark.cases(3)
@every_chain
@pytest.mark.parametrize(
    ("likelihood", "target"),
    [
        (Bernoulli(), 1.0),
        (Poisson(), 4.0),
        (Gaussian(0.3), 1.7),
        (Weighted(Bernoulli(), np.array([2.5])), 1.0),
    ],
    ids=lambda p: type(p).__name__,
)
def test_one_latent_against_quadrature(likelihood, target, sampler):
    variance = 1.8
    draws = bayes.sample_latents(
        jax.random.key(1), [[variance]], [[target]], likelihood, sampler=sampler, **LONG
    ).latents[..., 0, 0]
    f = np.linspace(-12, 12, 20001)
    log_likelihood = {
        Bernoulli: lambda: stats.bernoulli.logpmf(1, 1 / (1 + np.exp(-f))),
        Poisson: lambda: stats.poisson.logpmf(4, np.exp(f)),
        Gaussian: lambda: stats.norm.logpdf(1.7, f, 0.3),
        Weighted: lambda: -2.5 * np.log1p(np.exp(-f)),
    }[type(likelihood)]()
    cdf, mean, sd = quadrature(f, log_likelihood + stats.norm.logpdf(f, scale=variance**0.5))
    assert_within_standard_errors(draws[..., None], [mean])
    assert_within_standard_errors((draws[..., None] - mean) ** 2, [sd**2])
    assert_same_distribution(draws, cdf)


@pytest.mark.cases(1)
@every_chain
def test_two_class_softmax_against_quadrature(sampler):
    variance = 3.0
    draws = bayes.sample_latents(
        jax.random.key(2), [[variance]], [[1.0, 0.0]], Categorical(), sampler=sampler, **LONG
    ).latents[:, :, 0]
    # Softmax sees only the difference of the latents, of which the sum is independent.
    f = np.linspace(-25, 25, 20001)
    cdf, mean, _ = quadrature(
        f, -np.log1p(np.exp(-f)) + stats.norm.logpdf(f, scale=(2 * variance) ** 0.5)
    )
    difference, total = draws[..., 0] - draws[..., 1], draws.sum(-1)
    assert_within_standard_errors(difference[..., None], [mean])
    assert_same_distribution(difference, cdf)
    assert_same_distribution(total, stats.norm(scale=(2 * variance) ** 0.5).cdf)
    assert_within_standard_errors((difference * total)[..., None], [0.0])


def quadrature(f, log_density):
    """Distribution function, mean and standard deviation of an unnormalised density on a grid."""
    p = np.exp(log_density - log_density.max())
    p /= p.sum()
    mean = p @ f
    return lambda x: np.interp(x, f, np.cumsum(p)), mean, np.sqrt(p @ (f - mean) ** 2)


def assert_same_distribution(draws, cdf):
    """Kolmogorov-Smirnov test of draws thinned until they are nearly independent."""
    ess = min(
        array_stats.ess(draws, chain_axis=0, draw_axis=1, method=method)
        for method in ("bulk", "folded")
    )
    thinned = draws[:, :: int(np.ceil(2 * draws.size / ess))].ravel()
    assert stats.kstest(thinned, cdf).pvalue > 1e-3


def test_uninformative_data_give_the_prior():
    draws = bayes.sample_latents(jax.random.key(3), S, Y, Gaussian(1e6), **LONG).latents
    assert_within_standard_errors(draws, np.zeros((5, 2)))
    products = np.einsum("sdic,sdjc->sdcij", draws, draws)
    assert_within_standard_errors(products, np.broadcast_to(S, (2, 5, 5)))
    for i in range(5):
        assert_same_distribution(draws[:, :, i, 0], stats.norm(scale=S[i, i] ** 0.5).cdf)


@pytest.mark.cases(1)
@every_chain
def test_keys_decide_the_draws(sampler):
    def sample(seed, **change):
        return bayes.sample_latents(
            jax.random.key(seed), S, Y, Gaussian(NOISE), sampler=sampler, **(SHORT | change)
        ).latents

    first = sample(0)
    np.testing.assert_array_equal(first, sample(0))
    assert not np.allclose(first[0], first[1])
    assert not np.allclose(first, sample(1))
    np.testing.assert_array_equal(first, sample(0, num_chains=3)[:2])
    # 507 is no multiple of the length of a block.
    longer = sample(0, num_samples=507)
    assert longer.shape == (2, 507, 5, 2)
    np.testing.assert_array_equal(first, longer[:, :500])


@pytest.mark.cases(2)
@every_chain
def test_chains_and_data_share_one_compilation(sampler):
    chains._advance.clear_cache()
    for seed in (0, 1):
        key, noise = jax.random.key(seed), Gaussian(0.5 + seed)
        bayes.sample_latents(key, S, Y + seed, noise, sampler=sampler, **SHORT)
    assert chains._advance._cache_size() == 1


@pytest.mark.slow
def test_single_precision_stays_single():
    draws = bayes.sample_latents(
        jax.random.key(0), S.astype("f4"), Y.astype("f4"), Gaussian(NOISE), **SHORT
    )
    predicted = bayes.predict_latents(
        jax.random.key(1), draws, S.astype("f4"), np.diag(S).astype("f4")
    )
    assert draws.latents.dtype == predicted.dtype == np.float32
    assert len(bayes.diagnostics(draws).warnings) <= 2


def test_progress_counts_all_chains():
    calls = []
    bayes.sample_latents(
        jax.random.key(0), S, Y, Gaussian(NOISE), **SHORT, progress=lambda *a: calls.append(a)
    )
    done, totals = zip(*calls, strict=True)
    assert set(totals) == {1600}
    assert list(done) == sorted(done)
    assert done[-1] == 1600


@pytest.mark.cases(2)
@every_chain
def test_interrupt_ends_all_chains(sampler):
    def interrupt(done, total):
        raise KeyboardInterrupt

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        bayes.sample_latents(
            jax.random.key(0),
            S,
            Y,
            Gaussian(NOISE),
            sampler=sampler,
            num_warmup=300,
            num_samples=10**7,
            num_chains=3,
            progress=interrupt,
        )
    assert threading.active_count() == before


def test_interrupt_does_not_wait_for_a_long_draw(monkeypatch):
    """A draw of many points may take minutes, and nothing ends it from outside."""
    released, started = threading.Event(), threading.Event()
    monkeypatch.setattr(chains, "_PATIENCE_SECONDS", 0.05)

    def long_draw(state, posterior, sampler, count):
        started.set()
        assert released.wait(600)
        return state, None

    def interrupt(done, total):
        assert started.wait(600)
        raise KeyboardInterrupt

    monkeypatch.setattr(chains, "_advance", long_draw)
    settings = {"sampler": "ess", "num_warmup": 1, "num_samples": 10, "num_chains": 1}
    try:
        with pytest.raises(KeyboardInterrupt):
            bayes.sample_latents(KEY, S, Y, Gaussian(NOISE), **settings, progress=interrupt)
        assert not released.is_set()
    finally:
        released.set()
    for thread in threading.enumerate():
        if thread.name.startswith(chains.THREAD_NAMES):
            thread.join()


def test_blocks_of_any_length_are_the_same_chain(monkeypatch):
    """Slow draws come in short blocks: time must not tell."""
    settings = {"sampler": "ess", "num_warmup": 7, "num_samples": 30, "num_chains": 1}
    drawn = []
    for seconds in (0.0, 1e9):  # one draw at a time; as many as fit
        monkeypatch.setattr(chains, "_BLOCK_SECONDS", seconds)
        drawn.append(bayes.sample_latents(KEY, S, Y, Gaussian(NOISE), **settings).whitened)
    np.testing.assert_array_equal(*drawn)


def test_jitter_is_none_where_none_is_needed():
    prior = bayes.GaussianProcessPrior.from_covariance(jnp.asarray(S))
    assert prior.jitter == 0.0
    np.testing.assert_allclose(prior.factor, np.linalg.cholesky(S), rtol=1e-12)


def test_repeated_points_need_jitter_and_say_so():
    repeated = X[[0, 1, 2, 3, 3]]
    singular = squared_exponential(repeated, repeated)
    draws = bayes.sample_latents(jax.random.key(0), singular, Y, Gaussian(NOISE), **SHORT)
    jitter, factor = draws.prior.jitter, np.asarray(draws.prior.factor)
    assert 0 < jitter < 1e-10
    np.testing.assert_allclose(factor @ factor.T, singular + jitter * np.eye(5), atol=1e-14)
    difference = draws.latents[:, :, 3] - draws.latents[:, :, 4]
    assert np.abs(difference).max() < 6 * np.sqrt(2 * jitter)
    assert any(f"{jitter:.1e}" in text for text in bayes.diagnostics(draws).notes)


@pytest.mark.parametrize("broken", [np.diag([1.0, -1.0]), np.full((2, 2), np.nan)])
def test_what_is_no_covariance_is_refused(broken):
    with pytest.raises(ValueError, match="not positive semi-definite"):
        bayes.sample_latents(jax.random.key(0), broken, np.eye(2), Categorical(), **SHORT)


@pytest.mark.parametrize(
    ("covariance", "targets", "change", "message"),
    [
        (S[:4], Y, {}, "shape"),
        (S, Y[:4], {}, "shape"),
        (S, Y[:, 0], {}, "one-hot"),
        (S, Y, {"num_chains": 0}, "num_chains >= 1"),
        (S, Y, {"num_samples": 3}, "num_samples >= 4"),
        (S, Y, {"sampler": "gibbs"}, "sampler \"nuts\" .*; got 'gibbs'"),
        (bayes.GaussianProcessPrior(S, 0.0), Y[:4], {}, "shape"),
        (bayes.NetworkPrior(X[:, None], MLP(depth=0), 3), Y, {}, "3 outputs at 5 points"),
    ],
)
def test_wrong_shapes_and_counts_are_refused(covariance, targets, change, message):
    with pytest.raises(ValueError, match=message):
        bayes.sample_latents(
            jax.random.key(0), covariance, targets, Gaussian(NOISE), **(SHORT | change)
        )


# Label noise


def test_label_noise_and_ntk_prior_give_the_laplace_covariance():
    """At first order: the derivative of a member's latents in its prior function and label noise.

    By central differences, whose error falls fourfold when the step is halved.
    """
    n, c = 3, 3
    ntk, y = S[:n, :n], np.eye(3)[[0, 2, 2]]

    def latents(prior, noise):
        solution = solve_dual(
            jnp.asarray(ntk), 1.0, jnp.asarray(y), prior, Categorical(), linear=noise, tol=1e-20
        )
        return np.asarray(solution.latents).reshape(-1, n * c)

    zero = jnp.zeros((n * c, n, c))
    unit = jnp.eye(n * c).reshape(n * c, n, c)
    p = softmax(latents(zero, zero)[0].reshape(n, c), axis=1)
    w = np.zeros((n, c, n, c))
    for i in range(n):
        w[i, :, i] = np.diag(p[i]) - np.outer(p[i], p[i])
    w, prior = w.reshape(n * c, -1), np.kron(ntk, np.eye(c))
    laplace = np.linalg.inv(np.linalg.inv(prior) + w)

    def error(step):
        by_prior = (latents(step * unit, zero) - latents(-step * unit, zero)).T / (2 * step)
        by_noise = (latents(zero, step * unit) - latents(zero, -step * unit)).T / (2 * step)
        spread = by_prior @ prior @ by_prior.T + by_noise @ w @ by_noise.T
        return np.max(np.abs(spread - laplace)) / np.max(laplace)

    errors = [error(step) for step in (0.2, 0.1, 0.05)]
    assert errors[-1] < 1e-3
    np.testing.assert_allclose(np.divide(errors[:-1], errors[1:]), 4, rtol=0.1)


# Predictions


X_NEW = np.array([-2.0, 0.1, 0.3, 5.0])
S_XX, S_NEW = squared_exponential(X_NEW, X), squared_exponential(X_NEW, X_NEW)


def test_predictions_against_closed_form(conjugate):
    gain = S_XX @ np.linalg.inv(S + NOISE**2 * np.eye(5))
    mean, cov = gain @ Y, S_NEW - gain @ S_XX.T
    joint = bayes.predict_latents(jax.random.key(1), conjugate, S_XX, S_NEW, joint=True)
    joint = joint.reshape(2, -1, 4, 2)
    assert_within_standard_errors(joint, mean)
    products = np.einsum("sdic,sdjc->sdcij", joint - mean, joint - mean)
    assert_within_standard_errors(products, np.broadcast_to(cov, (2, 4, 4)))

    each = bayes.predict_latents(jax.random.key(1), conjugate, S_XX, np.diag(S_NEW))
    each = each.reshape(2, -1, 4, 2)
    assert_within_standard_errors(each, mean)
    variances = np.broadcast_to(np.diag(cov)[:, None], (4, 2))
    assert_within_standard_errors((each - mean) ** 2, variances)


@pytest.mark.parametrize("joint", [False, True])
def test_predictions_at_training_points_are_the_draws(conjugate, joint):
    variance = S if joint else np.diag(S)
    predicted = bayes.predict_latents(jax.random.key(1), conjugate, S, variance, joint=joint)
    # The conditional variance is rounding only: 1e-16, whose root is 1e-8.
    np.testing.assert_allclose(predicted, conjugate.latents.reshape(-1, 5, 2), atol=1e-6)


def test_predictions_do_not_depend_on_company(conjugate, monkeypatch):
    def predict(rows):
        return bayes.predict_latents(jax.random.key(1), conjugate, S_XX[rows], np.diag(S_NEW)[rows])

    everything = predict([0, 1, 2, 3])
    np.testing.assert_allclose(predict([2]), everything[:, [2]], rtol=1e-9)
    np.testing.assert_allclose(predict([3, 1, 0]), everything[:, [3, 1, 0]], rtol=1e-9)
    monkeypatch.setattr("ntk_uq.bayes.prediction._CHUNK", 1)  # one point at a time
    np.testing.assert_allclose(predict([0, 1, 2, 3]), everything, rtol=1e-9)


@pytest.mark.parametrize(
    ("S_xX", "S_xx", "joint"),
    [(S_XX[:, :4], np.diag(S_NEW), False), (S_XX, S_NEW, False), (S_XX, np.diag(S_NEW), True)],
)
def test_predictions_of_wrong_shapes_are_refused(conjugate, S_xX, S_xx, joint):
    with pytest.raises(ValueError, match=r"takes S_xX of shape \[m, 5\]"):
        bayes.predict_latents(jax.random.key(0), conjugate, S_xX, S_xx, joint=joint)


def test_kernels_of_different_scale_are_refused(conjugate):
    with pytest.raises(ValueError, match="same kernel"):
        bayes.predict_latents(jax.random.key(0), conjugate, 2 * S_XX, np.diag(S_NEW))


# Diagnostics


def test_diagnostics_agree_with_arviz(conjugate):
    result = bayes.diagnostics(conjugate)
    assert len(str(result).splitlines()) == 5
    assert f"at least {result.ess_min:.0f}" in repr(result)
    tree = bayes.to_datatree(KEY, conjugate, Y, Gaussian(NOISE), output_names=["a", "b"])
    summary = az.summary(tree, round_to="none")
    assert list(summary.index[:2]) == ["f[0, a]", "f[0, b]"]
    np.testing.assert_allclose(result.rhat.ravel(), summary["r_hat"], rtol=1e-12)
    np.testing.assert_allclose(result.ess_bulk.ravel(), summary["ess_bulk"], rtol=1e-12)
    tail = az.ess(tree, method="tail", prob=(0.05, 0.95))["f"]
    np.testing.assert_allclose(result.ess_tail, tail, rtol=1e-12)
    assert result.rhat_max == summary["r_hat"].max()
    assert result.n_draws == 4000
    assert result.ess_per_second == result.ess_bulk.min() / conjugate.seconds
    assert result.warnings == ()


@pytest.mark.cases(1)
@pytest.mark.parametrize(("correlation", "n_draws"), [(0.0, 350), (0.4, 600)])
def test_high_rhat_by_chance_is_foreseen(correlation, n_draws):
    """Chains that have mixed: R-hat is above 1.01 for as many latents as foretold."""
    noise = np.random.default_rng(1).normal(size=(2, n_draws, 600, 2))
    latents = noise.copy()
    for t in range(1, n_draws):
        latents[:, t] = correlation * latents[:, t - 1] + np.sqrt(1 - correlation**2) * noise[:, t]
    result = bayes.diagnostics(draws_of(latents))
    # Latents are independent here, so that the count is nearly a Poisson one.
    expected = result.rhat_high_by_chance
    assert result.n_rhat_high > 0
    assert abs(result.n_rhat_high - expected) < 3.3 * np.sqrt(expected)
    assert result.rhat_p_value > 0.01
    assert any("explains it" in text for text in result.notes)


def test_chains_that_disagree_are_reported():
    latents = np.random.default_rng(0).normal(size=(2, 400, 50, 2))
    latents[1, :, :10] += 0.5
    result = bayes.diagnostics(draws_of(latents))
    assert result.n_rhat_high >= 20
    assert result.rhat_p_value < 1e-3
    assert any("have not mixed" in text for text in result.warnings)


def test_few_draws_are_reported():
    result = bayes.diagnostics(draws_of(np.random.default_rng(0).normal(size=(2, 100, 5, 2))))
    assert result.n_ess_low == 10
    assert any("effective sample size" in text for text in result.warnings)


def test_one_chain_is_reported():
    result = bayes.diagnostics(draws_of(np.random.default_rng(0).normal(size=(1, 800, 5, 2))))
    assert np.isnan(result.rhat_max)
    assert result.n_rhat_high == 0
    assert any("num_chains" in text for text in result.warnings)


def test_a_latent_that_never_moves_is_reported():
    latents = np.random.default_rng(0).normal(size=(2, 800, 5, 2))
    latents[:, :, 0, 0] = 1.0
    result = bayes.diagnostics(draws_of(latents))
    assert result.rhat[0, 0] == np.inf
    assert result.ess_min == 1.0
    assert any("have not mixed" in text for text in result.warnings)


def test_steps_too_long_are_reported():
    """Without warm-up the step is 1, where the posterior is a thousandth wide.

    A network: the posterior of a Gaussian process is sampled in coordinates that it fits.
    """
    linear = bayes.NetworkPrior(jnp.asarray(X[:, None]), MLP(depth=0), 2)
    draws = bayes.sample_latents(
        jax.random.key(0), linear, Y, Gaussian(1e-3), num_warmup=0, num_samples=40, num_chains=2
    )
    result = bayes.diagnostics(draws)
    assert result.n_divergent == np.sum(draws.sample_stats["diverging"]) > 0
    assert result.n_stuck == 2
    assert any("diverged" in text for text in result.warnings)
    assert any("stuck" in text for text in result.warnings)


def test_trajectories_cut_short_are_reported():
    draws = bayes.sample_latents(
        jax.random.key(0), S, Y, Gaussian(NOISE), **(SHORT | {"max_tree_depth": 1})
    )
    np.testing.assert_array_equal(draws.sample_stats["n_steps"], 1)
    result = bayes.diagnostics(draws)
    assert result.n_max_treedepth == 1000
    assert any("trajectory length" in text for text in result.warnings)


# Labelled


def test_datatree_is_what_arviz_takes(conjugate):
    tree = bayes.to_datatree(
        KEY, conjugate, Y, Gaussian(NOISE), output_names=["a", "b"], points=list("vwxyz")
    )
    f = tree.posterior["f"]
    assert f.dims == ("chain", "draw", "point", "class")
    np.testing.assert_array_equal(
        f.sel({"point": "x", "class": "b"}), conjugate.latents[:, :, 2, 1]
    )
    log_likelihood = tree.log_likelihood["y"]
    assert log_likelihood.dims == ("chain", "draw", "point")
    np.testing.assert_allclose(
        log_likelihood, stats.norm.logpdf(Y, conjugate.latents, NOISE).sum(-1), rtol=1e-12
    )
    np.testing.assert_array_equal(tree.observed_data["y"].sel({"class": "a"}), Y[:, 0])
    assert {"diverging", "energy", "lp", "n_steps", "acceptance_rate"} <= set(tree.sample_stats)
    assert az.summary(tree, var_names=["f"]).shape[0] == 10


def test_loo_against_closed_form():
    noise = 3.0  # so that no point has much influence on its own prediction
    draws = bayes.sample_latents(jax.random.key(0), S, Y, Gaussian(noise), **LONG)
    tree = bayes.to_datatree(KEY, draws, Y, Gaussian(noise), output_names=["a", "b"])
    loo = az.loo(tree, pointwise=True)
    # Rasmussen and Williams 2006, equations 5.10 to 5.12.
    precision = np.linalg.inv(S + noise**2 * np.eye(5))
    variance = 1 / np.diag(precision)[:, None]
    exact = stats.norm.logpdf(precision @ Y * variance, scale=variance**0.5).sum(-1)
    assert np.all(loo.pareto_k < 0.5)
    # The density of a point left out is the harmonic mean of its densities.
    weights = np.exp(-tree.log_likelihood["y"].to_numpy())
    assert_within_standard_errors(weights, np.exp(-exact))
    error = weights.std((0, 1)) / weights.mean((0, 1)) / np.sqrt(weights[..., 0].size / 4)
    assert np.all(np.abs(loo.elpd_i - exact) < 4 * error)


# Cost


def test_cost_is_foreseen(conjugate):
    cost = bayes.estimate_cost(5, 2, **LONG)
    steps = conjugate.sample_stats["n_steps"].mean() * 2 * (300 + 2000)
    assert steps / 3 < cost.n_steps < steps * 3
    assert cost.memory > conjugate.whitened.nbytes + conjugate.latents.nbytes


@pytest.mark.parametrize("sampler", samplers_of(DrawSampler))
def test_cost_grows_with_the_work(sampler):
    sizes = SHORT | {"sampler": sampler}
    for more in ({"num_samples": 5000}, {"n": 40}, {"n_outputs": 20}, {"n_parameters": 10**5}):
        arguments = {"n": 20, "n_outputs": 3} | sizes
        cost, larger = (bayes.estimate_cost(**(arguments | extra)) for extra in ({}, more))
        assert larger.memory > cost.memory
        as_many = sampler not in samplers_of(ChainSampler) and "num_samples" in more
        assert larger.seconds > cost.seconds or as_many


def test_large_problems_are_seen_to_be_large():
    digits = bayes.estimate_cost(300, 10, **SHORT)
    large = bayes.estimate_cost(5000, 10, **SHORT)
    assert digits.seconds < 60 < 600 < large.seconds
    assert large.memory > 5000**2 * 8
    assert "minutes" in str(large)
    assert "GiB" in str(large)
