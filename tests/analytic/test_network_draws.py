"""Draws whose prior functions are networks, and Theta in tiles, against dense solutions."""

import contextlib
import warnings
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from sklearn.base import clone

import ntk_uq as nuq
from ntk_uq import MLP, Bernoulli, Categorical, Gaussian, Poisson
from ntk_uq._common.rules import own_rules
from ntk_uq._common.solver import LARGEST_GAP, solve_dual
from ntk_uq._common.warnings import ConvergenceWarning
from ntk_uq.analytic import InfiniteEnsemble, estimate_memory
from ntk_uq.analytic.exact import _standard_normal
from ntk_uq.networks import Problem, RandomFunctions, random_functions

RNG = np.random.default_rng(0)
N, C = 32, 2
X, X_TEST = RNG.standard_normal((N, 3)), RNG.standard_normal((5, 3))
NET = MLP(width=32, depth=1)
NOISY = X[:, :C] + 0.5 * RNG.standard_normal((N, C))
TARGETS = {
    Categorical(): np.eye(C)[np.argmax(NOISY, axis=1)],
    Bernoulli(): (NOISY > 0).astype(float),
    Gaussian(0.3): NOISY,
    Poisson(): RNG.poisson(1.0, (N, C)).astype(float),
}
TOL = 0.005


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch):
    monkeypatch.setattr("ntk_uq._common.tiles.TILE_ROWS", 16)
    monkeypatch.setattr("ntk_uq.analytic.network_draws.PRIOR_WIDTH", 32)


def problem(likelihood, reg=0.1, weights=None, key=0):
    targets = TARGETS[likelihood]
    return Problem(X, targets, likelihood, reg, jax.random.key(key), NET, weights)


def distance(task, found, exact):
    """How far latents may be from the solution, in posterior standard deviations: [S].

    The root of the Hessian's quadratic form, whose inverse is the posterior's covariance.
    """
    ntk, difference = NET.kernels(X).ntk, found - exact.alpha
    pull = task.reg * np.einsum("sic,ij,sjc->s", difference, ntk, difference)
    moved = np.einsum("ij,sjc->sic", ntk, difference)
    bend = jax.jit(jax.vmap(lambda f, v: task.loss.curvature(f, task.targets).matvec(v)))
    return np.sqrt(pull + np.einsum("sic,sic->s", moved, bend(exact.latents, moved)))


@pytest.mark.cases(2)
@pytest.mark.parametrize("uncertainty", ["initialization", "posterior", "none"])
@pytest.mark.parametrize("likelihood", TARGETS, ids=lambda like: type(like).__name__)
@pytest.mark.parametrize("weights", [None, RNG.uniform(0.5, 2.0, N)], ids=["alike", "weighted"])
def test_draws_are_the_dense_solutions(tmp_path, likelihood, uncertainty, weights):
    task, draws = problem(likelihood, weights=weights), range(3)
    ensemble = InfiniteEnsemble(
        uncertainty, n_draws=3, prior_functions="networks", tol=TOL, storage=tmp_path
    )
    found = ensemble.fit(task).predictor
    with own_rules(), jax.enable_x64(True):
        y = jnp.asarray(task.targets)
        f0 = jnp.zeros((1, N, C)) if found.prior is None else jnp.asarray(found.prior(draws, X))
        f0, linear = f0.astype(float), 0.0
        solve = lambda *args, **kwargs: solve_dual(  # noqa: E731
            jnp.asarray(NET.kernels(X).ntk), task.reg, y, *args, task.loss, **kwargs
        )
        if uncertainty == "posterior":
            key = jax.random.fold_in(task.key, 3)
            (z,) = _standard_normal(key, draws, (N, C), dtype=np.float32)
            mode = solve(jnp.zeros((1, N, C))).latents[0]
            linear = task.loss.curvature(mode, y).sqrt_matvec(z.astype(float))
        exact = solve(f0, linear=linear)
        assert found.converged.all()
        # The label noise too is of a mode that is known to the tolerance.
        assert np.all(distance(task, np.asarray(found.alpha, float), exact) < 2 * TOL)


def test_predictions_have_the_law_of_exact_prior_functions(monkeypatch):
    """Means, spread and distribution of each latent, in standard errors."""
    monkeypatch.setattr("ntk_uq.analytic.network_draws.PRIOR_WIDTH", 256)
    task = problem(Categorical())
    few = {name: InfiniteEnsemble(n_draws=300, prior_functions=name) for name in
           ("networks", "exact")}  # fmt: skip
    ours = few["networks"].fit(task).latents(X_TEST).samples[..., 0]
    exact = few["exact"].fit(replace(task, key=jax.random.key(1))).latents(X_TEST).samples[..., 0]
    level = stats.norm.isf(1e-4 / len(X_TEST))
    error = np.sqrt((ours.var(0) + exact.var(0)) / 300)
    assert np.all(np.abs(ours.mean(0) - exact.mean(0)) < level * error)
    ratio = np.log(ours.std(0) / exact.std(0))
    assert np.all(np.abs(ratio) < level * np.sqrt(1 / 300))
    for a, b in zip(ours.T, exact.T, strict=True):
        assert stats.ks_2samp(a, b).pvalue > 1e-5


def test_progress_moves_while_the_mode_is_sought(monkeypatch):
    """It is a single solution, and takes long of many points."""
    bars = {}

    @contextlib.contextmanager
    def bar(label, total, show):
        bars[label] = []
        yield lambda done, total, **figures: bars[label].append(done / total)

    monkeypatch.setattr("ntk_uq.analytic.network_draws.progress_bar", bar)
    InfiniteEnsemble("none", prior_functions="networks").fit(problem(Categorical(), reg=1e-4))
    for label in ("deflation", "mode"):
        shares = np.array(bars[label])
        assert (np.diff(shares) >= 0).all()
        assert len(set(shares[(shares > 0) & (shares < 1)])) > 1
        # Each ends at its own tolerance.
        assert shares[-1] == 1


def test_draws_are_functions(tmp_path):
    labels = np.argmax(TARGETS[Categorical()], axis=1)
    settings = {"reg": 0.1, "n_draws": 3, "prior_functions": "networks"}
    model = nuq.NTKClassifier(NET, **settings).fit(X, labels)
    joint = model.predict_distribution(X_TEST, joint=True)
    assert joint.joint
    single = model.predict_distribution(X_TEST[2:]).samples
    np.testing.assert_allclose(joint.samples[:, 2:], single, atol=1e-5)
    functions = model.sample_functions()
    np.testing.assert_allclose(functions(X_TEST[:2]), joint.samples[:, :2], atol=1e-5)
    nuq.save(model, tmp_path / "model")
    again = nuq.load(tmp_path / "model").predict_distribution(X_TEST).samples
    np.testing.assert_allclose(again, joint.samples, atol=1e-5)
    more = nuq.NTKClassifier(NET, **{**settings, "n_draws": 5}).fit(X, labels)
    np.testing.assert_allclose(more.predict_distribution(X_TEST).samples[:3], again, atol=0.1)


@pytest.mark.parametrize("uncertainty", ["initialization", "posterior"])
def test_a_run_that_was_killed_goes_on(tmp_path, monkeypatch, uncertainty):
    """To the same result, and without what was done before its draws."""
    monkeypatch.setattr("ntk_uq.analytic.network_draws._draws_at_once_of_tiles", lambda *_: 2)
    ensemble = InfiniteEnsemble(
        n_draws=5, prior_functions="networks", checkpoint=tmp_path / "run", uncertainty=uncertainty
    )
    task = problem(Categorical())
    whole = replace(ensemble, checkpoint=None).fit(task).predictor.alpha
    solve, solved = solve_dual, []

    def killed(*args, **kwargs):
        solved.append(len(args[3]))
        if solved.count(2) == 2:
            raise KeyboardInterrupt
        return solve(*args, **kwargs)

    def forbidden(*args, **kwargs):
        raise AssertionError("a mode that is kept is sought again")

    monkeypatch.setattr("ntk_uq.analytic.network_draws.solve_dual", killed)
    with pytest.raises(KeyboardInterrupt):
        ensemble.fit(task)
    monkeypatch.setattr("ntk_uq.analytic.network_draws.deflate_at_mode", forbidden)
    again = ensemble.fit(task).predictor.alpha
    assert solved == [*[1] * (uncertainty == "posterior"), 2, 2, 2, 1]
    np.testing.assert_array_equal(again, whole)
    with pytest.raises(ValueError, match="checkpoint of another run"):
        ensemble.fit(problem(Categorical(), reg=0.2))


def test_a_mode_without_draws_is_kept_too(tmp_path, monkeypatch):
    """Of a problem that has no key."""

    def forbidden(*args, **kwargs):
        raise AssertionError("a mode that is kept is sought again")

    ensemble = InfiniteEnsemble("none", prior_functions="networks", checkpoint=tmp_path)
    task = replace(problem(Categorical()), key=None)
    first = ensemble.fit(task).predictor.alpha
    monkeypatch.setattr("ntk_uq.analytic.network_draws.deflate_at_mode", forbidden)
    np.testing.assert_array_equal(ensemble.fit(task).predictor.alpha, first)
    with pytest.raises(ValueError, match="another run: reg is"):
        ensemble.fit(replace(task, reg=0.2))


def test_who_gives_a_checkpoint_to_a_fit_that_has_none_is_told(tmp_path):
    labels = np.argmax(TARGETS[Categorical()], axis=1)
    for settings in ({"reg": 1.0, "method": "gaussian", "architecture": NET}, {"n_draws": 4}):
        model = nuq.NTKClassifier(**settings, checkpoint=tmp_path / "run")
        with warnings.catch_warnings(record=True, action="always") as caught:
            model.fit(X, labels)
        said = [w for w in caught if "nothing of this fit is kept" in str(w.message)]
        assert len(said) == 1
    assert not list(tmp_path.iterdir())


def test_a_run_of_another_network_of_the_same_name_is_refused(tmp_path):
    """Also of one whose kernel is the same, and whose prior functions are others."""

    def fit(activation):
        task = replace(problem(Categorical()), architecture=MLP(width=32, activation=activation))
        return ensemble.fit(task).predictor.alpha

    ensemble = InfiniteEnsemble(n_draws=2, prior_functions="networks", checkpoint=tmp_path)
    first = fit(lambda z: jnp.sin(z))
    np.testing.assert_array_equal(fit(lambda z: jnp.sin(z)), first)
    with pytest.raises(ValueError, match=r"another run: kernel at points is \["):
        fit(lambda z: jnp.tanh(z))
    with pytest.raises(ValueError, match=r"another run: prior function at points is \["):
        fit(lambda z: -jnp.sin(z))


def test_a_tolerance_that_is_not_reached_is_said():
    """And by how much, though solutions are as good as without one. Double precision reaches it."""
    task = problem(Categorical())
    ensemble = InfiniteEnsemble(n_draws=2, prior_functions="networks", tol=1e-6)
    said = r"tol=1e-06 was not reached: 2 of 2 solutions may be up to \de-0\d .*Set a larger tol"
    with pytest.warns(ConvergenceWarning, match=said):
        found = ensemble.fit(task).predictor
    assert np.all(0.5 * 1e-6**2 < found.gap)
    assert np.all(found.gap < LARGEST_GAP)
    assert replace(ensemble, prior_functions="exact").fit(task).predictor.converged.all()
    with pytest.raises(ValueError, match="tol must be below 1"):
        replace(ensemble, tol=1.0).fit(task)


def test_what_single_precision_cannot_solve_double_precision_can():
    """Large counts, whose log is known to three digits: the message names the cure."""
    counts = RNG.poisson(np.exp(12 + 0.5 * X[:, :1])).astype(float)
    task = Problem(X, counts, Poisson(), 1.0, jax.random.key(0), MLP())
    ensemble = InfiniteEnsemble(n_draws=4, prior_functions="networks")
    with pytest.raises(ValueError, match=r'single precision: prior_functions="exact" solves'):
        ensemble.fit(task)
    with pytest.raises(ValueError, match=r"solved for in single precision\.$"):
        replace(ensemble, method="nystrom").fit(task)
    assert replace(ensemble, prior_functions="exact").fit(task).predictor.converged.all()
    wide = replace(problem(Categorical()), architecture=MLP(b_std=1e4))
    with pytest.raises(ValueError, match=r'single precision can solve .*"exact" solves in double'):
        ensemble.fit(wide)
    found = replace(ensemble, prior_functions="exact").fit(wide).predictor
    assert np.all(found.gap < LARGEST_GAP)


def test_inducing_points_come_nearer_to_the_solution_as_they_grow(tmp_path):
    """And are the solution where they are all points."""
    task = problem(Categorical())
    kernel_and_prior = {"n_draws": 3, "tol": TOL}
    exact = InfiniteEnsemble(prior_functions="networks", **kernel_and_prior).fit(task)
    wanted = exact.latents(X_TEST).samples
    off = []
    for m in (2, 10, 20, N):
        ensemble = InfiniteEnsemble(
            method="nystrom", n_inducing=m, storage=tmp_path, **kernel_and_prior
        )
        found = ensemble.fit(task)
        assert found.predictor.alpha.shape == (3, m, C)
        off.append(np.sqrt(np.mean((found.latents(X_TEST).samples - wanted) ** 2)))
    assert off[0] > off[1] > off[2] > off[3]
    # Both are solutions up to their tolerance; prior standard deviations are of size one.
    assert off[3] < 2 * TOL * np.sqrt(np.max(NET.kernel_diag(X_TEST).ntk) / task.reg)
    assert off[3] < 0.02 * off[0]


def test_inducing_points_are_those_of_the_key(tmp_path):
    """The same for the same, also where a checkpoint goes on, and as a saved model keeps them."""
    ensemble = InfiniteEnsemble(method="nystrom", n_inducing=10, n_draws=2)
    first, again, other = (ensemble.fit(problem(Categorical(), key=k)) for k in (0, 0, 1))
    np.testing.assert_array_equal(first.points, again.points)
    assert not np.array_equal(first.points, other.points)
    kept = replace(ensemble, checkpoint=tmp_path / "run")
    for _ in range(2):
        found = kept.fit(problem(Categorical()))
        np.testing.assert_array_equal(found.predictor.alpha, first.predictor.alpha)
    labels = np.argmax(TARGETS[Categorical()], axis=1)
    model = nuq.NTKClassifier(NET, 1.0, method="nystrom", n_inducing=10, n_draws=2, random_state=3)
    nuq.save(model.fit(X, labels), tmp_path / "model")
    loaded = nuq.load(tmp_path / "model")
    np.testing.assert_allclose(loaded.predict_proba(X_TEST), model.predict_proba(X_TEST), atol=1e-5)
    anew = model.set_params(random_state=4).fit(X, labels)
    assert not np.array_equal(anew._fitted.points, loaded._fitted.points)


def test_inducing_points_see_what_the_definition_says():
    """Theta_XZ Theta_ZZ^-1 Theta_ZX, and its coefficients."""
    task = problem(Categorical())
    kernel = InfiniteEnsemble(method="nystrom", n_inducing=10).kernel_products(task)
    cross, inner = NET.kernels(X, kernel.points).ntk, NET.kernels(kernel.points).ntk
    expected = cross @ np.linalg.solve(inner, cross.T)
    found = kernel.ntk.product(np.eye(N))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(kernel.ntk.diagonal(), np.diag(expected), atol=1e-5)
    alpha = RNG.standard_normal((3, N, C)).astype(np.float32)
    beta = kernel.coefficients(alpha)
    trained = np.einsum("im,smc->sic", cross, beta)
    np.testing.assert_allclose(trained, np.einsum("ij,sjc->sic", expected, alpha), atol=1e-3)


def test_what_networks_cannot_do_is_refused():
    task = problem(Categorical())
    ensemble = InfiniteEnsemble(prior_functions="networks")
    with pytest.raises(ValueError, match="n_trajectories=0"):
        replace(ensemble, uncertainty="posterior", n_trajectories=1).fit(task)
    with pytest.raises(ValueError, match="take reg > 0"):
        ensemble.fit(replace(task, reg=0.0))
    with pytest.raises(ValueError, match="every process has all features"):
        replace(ensemble, method="nystrom", storage="processes").fit(task)
    own = replace(task, architecture=nuq.Architecture(lambda *a, rngs: None, lambda *a, **k: None))
    assert not InfiniteEnsemble().takes_networks(own)
    with pytest.raises(ValueError, match="how it is widened"):
        ensemble.fit(own)


def test_points_of_an_estimator_are_not_copied_again():
    task = problem(Categorical())
    ensemble = InfiniteEnsemble(n_draws=2, prior_functions="networks")
    assert not np.shares_memory(ensemble.fit(task).points, X)
    view = X.view()  # as pandas hands out, and files that are mapped
    view.flags.writeable = False
    assert not np.shares_memory(ensemble.fit(replace(task, points=view)).points, X)
    as_it_is = replace(ensemble, copy=False)
    assert np.shares_memory(as_it_is.fit(task).points, X)
    scaled = replace(as_it_is, feature_scales=np.full(3, 2.0)).fit(task).points
    np.testing.assert_array_equal(scaled, 2 * X)
    assert not nuq.NTKClassifier(NET)._producer(1.0).copy
    ensemble = replace(ensemble, uncertainty="none")
    needed = ensemble.memory(replace(task, points=np.zeros((N, 1000))))
    assert needed - ensemble.memory(replace(task, points=np.zeros((N, 500)))) == 8 * N * 500


def test_predicted_memory_has_room_for_the_networks_of_the_prior():
    wide = nuq.NTKClassifier(MLP(width=4096, depth=3), 1.0, n_draws=8, prior_functions="networks")
    # Parameters, their random bits and normal numbers, four bytes each, are 12 bytes of each.
    n_parameters = 11 * 4096 + 2 * 4096 * 4097 + 4097 * 2
    assert wide.memory(2048, 2, 10) - wide.memory(2048, 2) > 12 * n_parameters
    tangent = clone(wide).set_params(uncertainty="posterior")
    assert tangent.memory(2048, 2, 10) - wide.memory(2048, 2, 10) > 12 * n_parameters
    images = nuq.NTKClassifier(nuq.ConvNet(), 1.0, prior_functions="networks")
    assert images.memory(4000, 10, (28, 28, 1)) > images.memory(4000, 10, (8, 8, 1))
    with pytest.raises(ValueError, match="3 axes of their own; got n_features=784"):
        images.memory(4000, 10, 784)


def test_blocks_of_points_are_as_small_as_activations_are_large():
    """Of 512 units as many points as ever; of 512 channels on 28 x 28 pixels five."""
    large = nuq.ConvNet(width=512, depth=1)
    assert random_functions._points_at_once(MLP(width=512), 10, 2) == 4096
    assert random_functions._points_at_once(large, (28, 28, 1), 2) == 5
    images = RNG.normal(size=(12, 28, 28, 1))
    draw = RandomFunctions(large, "nngp", 1.0, 2, (0,))
    with own_rules():
        together = draw(range(1), images)
        alone = np.concatenate([draw(range(1), image[None]) for image in images], axis=1)
    np.testing.assert_allclose(together, alone, atol=1e-4 * np.abs(alone).max())


def test_predicted_memory_is_that_of_one_triangle():
    """60,000 points of 10 classes: 1.2 times the packed triangle of single precision."""
    needed = estimate_memory(60_000, 10, 64, "exact", "initialization", "networks")
    assert needed < 1.2 * 4 * 60_000**2 / 2
    pixels = estimate_memory(60_000, 10, 64, "exact", "initialization", "networks", n_features=784)
    assert pixels < 1.2 * 4 * 60_000**2 / 2  # with the images
    assert nuq.NTKClassifier(n_draws=64).memory(60_000, 10) == needed  # the same question
    in_a_file = estimate_memory(60_000, 10, 64, "exact", "initialization", "networks", False)
    assert in_a_file < 0.35 * 4 * 60_000**2 / 2
    divided = [
        estimate_memory(
            60_000, 10, 64, "exact", "initialization", "networks", n_processes=processes
        )
        for processes in (4, 8)
    ]
    assert divided[0] < 0.5 * needed
    assert divided[1] < divided[0]
