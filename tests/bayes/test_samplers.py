"""The samplers themselves: coordinates, slices, variational inference, and calibration by ranks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arviz_stats.base import array_stats
from scipy import stats

from ntk_uq import bayes
from ntk_uq._common.coordinates import Preconditioned
from ntk_uq.analytic import gaussian_predictor
from ntk_uq.bayes.posterior import Whitened
from ntk_uq.bayes.samplers import EllipticalSlices, NoUTurn
from ntk_uq.bayes.samplers.variational import fit_mean_field
from ntk_uq.likelihoods import Bernoulli, Categorical, Gaussian, Poisson, Weighted
from ntk_uq.networks.architecture import Kernels

pytestmark = pytest.mark.double_precision


X = np.array([-1.5, -0.4, 0.3, 1.0, 2.1])
S = 2.0 * np.exp(-0.5 * (X[:, None] - X) ** 2)
L = np.linalg.cholesky(S)
RNG = np.random.default_rng(0)
Y = RNG.normal(size=(5, 2))
PROBLEMS = {
    "categorical": (Categorical(), np.eye(2)[[0, 1, 1, 0, 1]]),
    "bernoulli": (Bernoulli(), np.eye(2)[[0, 1, 1, 0, 1]]),
    "poisson": (Poisson(), np.array([[0, 3], [1, 1], [5, 0], [2, 2], [0, 9.0]])),
    "gaussian": (Gaussian(0.3), Y),
    "two noises": (Gaussian(np.array([0.3, 2.0])), Y),
    "weighted": (Weighted(Categorical(), RNG.uniform(0.5, 2, 5)), np.eye(2)[[0, 1, 1, 0, 1]]),
}


def posteriors(name):
    likelihood, targets = PROBLEMS[name]
    whitened = Whitened(
        bayes.GaussianProcessPrior(jnp.asarray(L), 0.0), jnp.asarray(targets), likelihood
    )
    return whitened, Preconditioned.create(jnp.asarray(L), jnp.asarray(targets), likelihood)


@pytest.mark.cases(2)
@pytest.mark.parametrize("name", PROBLEMS)
def test_preconditioned_is_the_same_posterior(name):
    """The log joint density of z and y, at the z and f that a position stands for."""
    whitened, preconditioned = posteriors(name)
    for u in RNG.normal(size=(3, 5, 2)):
        z, f = preconditioned.outcome(jnp.asarray(u))
        np.testing.assert_allclose(f, L @ z, rtol=1e-12, atol=1e-12)
        joint = preconditioned.log_joint(preconditioned.potential(jnp.asarray(u)))
        np.testing.assert_allclose(joint, -whitened.potential(z), rtol=1e-10)


@pytest.mark.parametrize("name", PROBLEMS)
def test_preconditioned_starts_at_draws_from_the_prior(name):
    whitened, preconditioned = posteriors(name)
    key = jax.random.key(0)
    z, _ = preconditioned.outcome(preconditioned.start(key))
    np.testing.assert_allclose(z, whitened.start(key), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["gaussian", "two noises"])
def test_preconditioned_is_standard_normal_where_the_posterior_is_normal(name):
    _, preconditioned = posteriors(name)
    hessian = jax.hessian(preconditioned.potential)(jnp.asarray(RNG.normal(size=(5, 2))))
    np.testing.assert_allclose(hessian.reshape(10, 10), np.eye(10), atol=1e-10)


@pytest.mark.parametrize("name", PROBLEMS)
def test_nuts_runs_in_them_unless_outputs_are_coupled(name):
    whitened, _ = posteriors(name)
    chosen = NoUTurn().coordinates(whitened)
    assert isinstance(chosen, Preconditioned) == (name not in ("categorical", "weighted"))


def test_little_noise_costs_no_more_steps():
    """The posterior is a thousandth wide in some directions and one in others."""
    draws = bayes.sample_latents(
        jax.random.key(0), S, Y, Gaussian(1e-3), num_warmup=200, num_samples=500, num_chains=2
    )
    assert draws.sample_stats["n_steps"].mean() < 15
    assert bayes.diagnostics(draws).warnings == ()


# Elliptical slices


def z_scores(values, expected):
    ess = array_stats.ess(values, chain_axis=0, draw_axis=1, method="mean")
    return np.abs(values.mean((0, 1)) - expected) / (values.std((0, 1)) / np.sqrt(ess))


@pytest.fixture(scope="module")
def slices():
    with jax.enable_x64(True):
        return bayes.sample_latents(
            jax.random.key(0),
            S,
            Y,
            Gaussian(0.6),
            sampler="ess",
            num_warmup=100,
            num_samples=2000,
            num_chains=2,
        )


def test_slices_sample_the_conjugate_posterior(slices):
    gain = S @ np.linalg.inv(S + 0.36 * np.eye(5))
    mean, cov = gain @ Y, S - gain @ S
    assert z_scores(slices.latents, mean).max() < stats.norm.isf(5e-4 / 10)
    centred = slices.latents - mean
    products = np.einsum("sdic,sdjc->sdcij", centred, centred)
    z = z_scores(products, np.broadcast_to(cov, (2, 5, 5)))
    assert z.max() < stats.norm.isf(5e-4 / 50)
    np.testing.assert_allclose(slices.latents, L @ slices.whitened, atol=1e-9)


def test_statistics_of_slices(slices):
    recorded = slices.sample_stats
    log_likelihood = stats.norm.logpdf(Y, slices.latents, 0.6).sum((-2, -1))
    lp = log_likelihood - 0.5 * np.sum(slices.whitened**2, axis=(-2, -1))
    np.testing.assert_allclose(recorded["lp"], lp, rtol=1e-9)
    # Twenty transitions, each of which evaluates at least one likelihood.
    assert recorded["n_evaluations"].min() >= 20
    np.testing.assert_allclose(recorded["acceptance_rate"], 20 / recorded["n_evaluations"])
    result = bayes.diagnostics(slices)
    assert result.sampler == "ess"
    assert result.n_divergent == result.n_max_treedepth == result.n_stuck == 0
    assert result.steps_per_draw == recorded["n_evaluations"].mean()


def test_slow_slices_are_reported():
    """Little noise: a slice moves by about the noise, and cannot reach all of the posterior."""
    draws = bayes.sample_latents(
        jax.random.key(0),
        S,
        Y,
        Gaussian(0.01),
        sampler="ess",
        num_warmup=20,
        num_samples=100,
        num_chains=2,
    )
    said = bayes.diagnostics(draws).warnings
    assert any("have not mixed" in text and 'sampler="nuts"' in text for text in said)
    assert any("effective sample size" in text for text in said)


def test_slices_end_where_there_is_no_likelihood():
    """Latents of ten thousand: exp overflows, every density is zero, and chains are stuck."""
    draws = bayes.sample_latents(
        jax.random.key(0),
        1e8 * np.eye(30),
        np.ones((30, 1)),
        Poisson(),
        sampler="ess",
        num_warmup=0,
        num_samples=20,
        num_chains=2,
    )
    assert np.isneginf(draws.sample_stats["lp"]).all()
    result = bayes.diagnostics(draws)
    assert result.n_stuck == 2
    assert any("stuck" in text for text in result.warnings)


# Variational inference


def test_mean_field_of_a_normal_posterior():
    """Its means are right; its scales are those of each variable, given all others."""
    noise = 0.6
    precision = np.eye(5) + L.T @ L / noise**2
    mean = np.linalg.solve(precision, L.T @ Y / noise**2)
    scale = np.diag(precision) ** -0.5
    prior = bayes.GaussianProcessPrior(jnp.asarray(L), 0.0)
    fit = fit_mean_field(jax.random.key(0), Whitened(prior, jnp.asarray(Y), Gaussian(noise)), None)
    sd = np.sqrt(np.diag(np.linalg.inv(precision)))[:, None]
    assert np.max(np.abs(fit.loc - mean) / sd) < 0.1
    assert np.max(np.abs(fit.scale / scale[:, None] - 1)) < 0.1
    # The bound is the evidence less the divergence from the posterior.
    evidence = sum(stats.multivariate_normal.logpdf(y, cov=S + noise**2 * np.eye(5)) for y in Y.T)
    log_det = np.linalg.slogdet(precision)[1]
    divergence = -0.5 * log_det - np.sum(np.log(scale))  # the traces cancel
    assert abs(fit.elbo[-1] - (evidence - 2 * divergence)) < 0.2
    assert fit.elbo[-1] < evidence


def test_variational_inference_that_overflows_is_refused():
    with pytest.raises(ValueError, match="left the range of numbers"):
        bayes.variational_latents(jax.random.key(0), [[1e8]], [[1.0]], Poisson(), num_samples=10)


def test_variational_draws():
    prior = bayes.GaussianProcessPrior(jnp.asarray(L), 0.0)
    calls = []
    draws = bayes.variational_latents(
        jax.random.key(0),
        prior,
        Y,
        Gaussian(0.6),
        num_samples=500,
        num_chains=2,
        progress=lambda done, total, **figures: calls.append((done, total, figures["elbo"])),
    )
    assert draws.latents.shape == draws.whitened.shape == (2, 500, 5, 2)
    np.testing.assert_allclose(draws.latents, L @ draws.whitened, atol=1e-10)
    log_likelihood = stats.norm.logpdf(Y, draws.latents, 0.6).sum((-2, -1))
    lp = log_likelihood - 0.5 * np.sum(draws.whitened**2, axis=(-2, -1))
    np.testing.assert_allclose(draws.sample_stats["lp"], lp, rtol=1e-9)
    assert calls[-1][0] == calls[-1][1]
    assert draws.sample_stats["elbo"][0, 0] == calls[-1][2] > calls[0][2]
    # Independent: batches of draws scatter as independent ones do.
    flat = draws.latents.reshape(1000, -1)
    correlation = np.corrcoef(flat[1:, 0], flat[:-1, 0])[0, 1]
    assert abs(correlation) < 4 / np.sqrt(1000)
    with pytest.raises(ValueError, match="no chains to judge"):
        bayes.diagnostics(draws)
    with pytest.raises(ValueError, match="variational_latents takes a covariance"):
        bayes.variational_latents(jax.random.key(0), S[:4], Y, Gaussian(0.6), num_samples=10)


# Simulation-based calibration (Talts et al. 2018): over latents drawn from the prior and targets
# drawn from them, the rank of a latent among draws from its posterior is uniform. Every column is a
# replication: a Bernoulli likelihood makes outputs independent, a priori and a posteriori.

WIDE = 4.5 * S  # so that logits reach 6, where a Gaussian is a poor approximation


def replications(number, seed=0):
    """True latents [n, R] from the prior, and targets [n, R] drawn from them."""
    rng = np.random.default_rng(seed)
    latents = np.linalg.cholesky(WIDE) @ rng.normal(size=(5, number))
    return latents, (rng.random(latents.shape) < 1 / (1 + np.exp(-latents))).astype(float)


def p_values(draws, truth, targets):
    """Of uniform ranks, by a chi-squared test over ten bins: two latents, and the log likelihood.

    Draws [99, n, R] of every replication, nearly independent.
    """
    assert len(draws) == 99

    def log_likelihood(f):
        return np.sum(targets * f - np.log1p(np.exp(f)), axis=-2)

    pairs = [(draws[:, i], truth[i]) for i in (0, 2)]
    pairs.append((log_likelihood(draws), log_likelihood(truth)))
    for values, true_value in pairs:
        ranks = np.sum(values < true_value, axis=0)
        yield stats.chisquare(np.bincount(ranks // 10, minlength=10)).pvalue


@pytest.mark.slow
def test_nuts_is_calibrated():
    truth, targets = replications(400)
    draws = bayes.sample_latents(
        jax.random.key(0),
        WIDE,
        targets,
        Bernoulli(),
        num_warmup=300,
        num_samples=3 * 99,
        num_chains=1,
    )
    assert min(p_values(draws.latents[0, ::3], truth, targets)) > 0.001 / 3


@pytest.mark.slow
def test_slices_are_calibrated():
    """One chain a replication: an ellipse through many would turn all of them together."""
    truth, targets = replications(400)
    prior = bayes.GaussianProcessPrior(jnp.linalg.cholesky(jnp.asarray(WIDE)), 0.0)
    sampler = EllipticalSlices()

    @jax.jit
    @jax.vmap
    def chain(key, targets):
        posterior = Whitened(prior, targets[:, None], Bernoulli())
        state = sampler.init(key, posterior)
        step = sampler.stepper(state, posterior)

        def draw(state, _):
            state, z, _ = step(state)
            return state, prior.latents(z)[:, 0]

        return jax.lax.scan(draw, state, length=30 + 3 * 99)[1]

    draws = chain(jax.random.split(jax.random.key(0), 400), jnp.asarray(targets).T)
    draws = np.moveaxis(np.asarray(draws)[:, 30::3], 0, -1)
    assert min(p_values(draws, truth, targets)) > 0.001 / 3


@pytest.mark.slow
def test_calibration_rejects_variational_inference():
    """It misses the correlations that the data bring about."""
    truth, targets = replications(2000)
    draws = bayes.variational_latents(jax.random.key(0), WIDE, targets, Bernoulli(), num_samples=99)
    assert min(p_values(draws.latents[0], truth, targets)) < 1e-6


@pytest.mark.slow
def test_calibration_rejects_laplace():
    """Its Gaussian sits at the mode of a skewed posterior, too near to zero."""
    truth, targets = replications(2000)
    draws = np.empty((99, 5, 2000))
    rng = np.random.default_rng(1)
    patterns, which = np.unique(targets, axis=1, return_inverse=True)
    for k, pattern in enumerate(patterns.T):
        predictor = gaussian_predictor(
            Kernels(WIDE, WIDE), pattern[:, None], 1.0, Bernoulli(), "posterior"
        )
        mean, cov = predictor.joint_moments(Kernels(WIDE, WIDE), Kernels(WIDE, WIDE))
        columns = np.flatnonzero(which == k)
        noise = rng.multivariate_normal(mean[:, 0], cov[:, 0, :, 0], (99, len(columns)))
        draws[:, :, columns] = np.moveaxis(noise, -1, 1)
    assert min(p_values(draws, truth, targets)) < 1e-6
