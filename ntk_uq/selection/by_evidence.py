"""The evidence of networks along regularisations, and what climbs it: scales, noise, and more."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, cast

import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import ArrayLike, NDArray

from ntk_uq._common.blocks import placed
from ntk_uq._common.progress import Progress, piece
from ntk_uq._common.warnings import ConvergenceWarning, warn_user
from ntk_uq.likelihoods import Gaussian, Likelihood, Weighted
from ntk_uq.networks.mlp import MLP
from ntk_uq.networks.normal_scores import NormalScores
from ntk_uq.selection.evidence import log_evidence, maximise_evidence
from ntk_uq.selection.noise import _LEAST_NOISE, Spectrum, estimate_noise

__all__ = ["NATS", "Refined", "evidences", "refine", "smooth", "warn_unmoved"]

Floats = NDArray[np.float64]

# What a parameter that climbs the evidence is to add to its logarithm (Akaike 1974), and scores in
# the place of features.
NATS = 1.0


def evidences(
    networks: Sequence[Any],
    X: Floats,
    y: Floats,
    likelihood: Likelihood,
    fit_noise: bool,
    weights: Floats | None,
    progress: Progress | None,
    regs: Sequence[float],
) -> Floats:
    """Log evidence of networks at each regularisation: [K, R].

    Parameters
    ----------
    networks : sequence of K architectures
    X : array of shape [n, d]
        Points.
    y : array of shape [n, C]
        Targets.
    likelihood : Likelihood
        Observation model.
    fit_noise : bool
        Whether each has its own best noise, of a Gaussian likelihood.
    weights : array of shape [n], optional
        How much each point counts.
    progress : callable, optional
        ``progress(done, total)``.
    regs : sequence of R floats

    Examples
    --------
    >>> import jax, numpy as np
    >>> from ntk_uq import MLP, Gaussian
    >>> X = np.linspace(-1, 1, 20)[:, None]
    >>> data = X, np.sin(3 * X), Gaussian(0.1), False, None, None
    >>> with jax.enable_x64(True):
    ...     values = evidences([MLP(depth=1), MLP(depth=0)], *data, [0.1, 10.0])
    >>> values.shape, bool(values[0, 0] > values[1, 0])
    ((2, 2), True)
    """
    values = np.empty((len(networks), len(regs)))
    for k, network in enumerate(networks):
        report = piece(progress, k, len(networks))
        evidence = _evidence_along(network.kernels(X).ntk, y, likelihood, fit_noise, weights)
        for i, reg in enumerate(regs):
            values[k, i] = evidence(reg)
            if report is not None:
                report(i + 1, len(regs))
    return values


def _evidence_along(
    ntk: ArrayLike,
    y: Floats,
    likelihood: Likelihood,
    fit_noise: bool,
    weights: Floats | None,
) -> Callable[[float], Array]:
    """Log evidence as a function of the regularisation."""
    if not isinstance(likelihood, Gaussian):
        loss = likelihood if weights is None else Weighted(likelihood, placed(weights))
        return lambda reg: log_evidence(placed(ntk), placed(y), reg, loss)
    spectrum = Spectrum.of(ntk, y, weights)
    return lambda reg: spectrum.log_evidence(
        reg, spectrum.best_noise(reg) if fit_noise else likelihood.noise
    )


class Refined(NamedTuple):
    """Where the evidence was climbed to.

    Attributes
    ----------
    network : BaseArchitecture
    reg : float
        Regularisation.
    scales : array of shape [d]
        Factors of the features.
    likelihood : Likelihood
        With the noise found.
    evidence : float
        Its logarithm, in nats.
    moved : bool
        Whether the search has left its start.
    climbed : tuple of str
        What it sought.
    """

    network: Any
    reg: float
    scales: Floats
    likelihood: Likelihood
    evidence: float
    moved: bool
    climbed: tuple[str, ...]


def smooth(
    architecture: MLP,
    X: Floats,
    y: Floats,
    likelihood: Likelihood,
    tune: Sequence[str],
    weights: Floats | None,
    regs: Sequence[float],
    known: tuple[Floats, Floats | None],
) -> Refined:
    """The same network with smooth units, a scale for each feature climbing the evidence.

    Kernels of relu units are rough: what is smooth they take for noise, or noise for a function.
    One or two layers of "gelu" that see the features or, if that is worth a nat, their normal
    scores: those of the highest evidence before the climb. The scale of the biases climbs too.
    Together they say how sharply units bend: where all are large, kernels are rough but for the
    nearest points.

    Parameters
    ----------
    architecture, X, y, likelihood, tune, weights
        As of `refine`.
    regs : sequence of floats
        Where the climb may start.
    known : tuple of array [N, d], and array [N] or None
        Points that give the scores, and how much each counts.

    Returns
    -------
    Refined
        Its scales are those of what the network sees of each feature.

    Examples
    --------
    >>> import jax, numpy as np
    >>> from ntk_uq import MLP, Gaussian
    >>> X = np.random.default_rng(0).normal(size=(30, 2))
    >>> data = X, np.sin(X[:, :1]), Gaussian(0.1), (), None, [0.1, 1.0], (X, None)
    >>> with jax.enable_x64(True):
    ...     first, second = smooth(MLP(), *data).scales
    >>> bool(first > 10 * second)  # of which the target is no function
    True
    """
    networks = [replace(architecture, depth=k, activation="gelu") for k in (1, 2)]
    scored = NormalScores.of(known[0], networks[0], known[1])
    seen = [X] if scored.changes_nothing else [X, np.asarray(scored.scores(placed(X)))]
    fit_noise = "noise" in tune
    values = np.array(
        [evidences(networks, Z, y, likelihood, fit_noise, weights, None, regs) for Z in seen]
    )
    values[1:] -= NATS
    i, k, r = map(int, np.unravel_index(np.nanargmax(values), values.shape))
    climbing, ones = (*tune, "b_std", "scales"), np.ones(X.shape[1])
    found = refine(networks[k], seen[i], ones, y, likelihood, climbing, weights, regs[r])
    if i == 0:
        return found
    return found._replace(network=replace(scored, network=found.network).of_scaled(found.scales))


def refine(
    network: Any,
    X: Floats,
    scales: Floats,
    y: Floats,
    likelihood: Likelihood,
    tune: Sequence[str],
    weights: Floats | None,
    reg: float,
) -> Refined:
    """Climb the evidence from the best regularisation of a scan.

    Parameters
    ----------
    network : BaseArchitecture
    X : array of shape [n, d]
        Points.
    scales : array of shape [d]
        Factors of the features, from which those in `tune` start.
    y : array of shape [n, C]
        Targets.
    likelihood : Likelihood
        Observation model.
    tune : sequence of str
        What climbs beside `reg`: "scales", "noise", "w_std", "b_std".
    weights : array of shape [n], optional
        How much each point counts.
    reg : float
        Where to start.

    Examples
    --------
    >>> import jax, numpy as np
    >>> from ntk_uq import MLP, Gaussian
    >>> X = np.linspace(-1, 1, 20)[:, None]
    >>> data = X, np.ones(1), np.sin(3 * X), Gaussian(0.1), ("noise",), None
    >>> with jax.enable_x64(True):
    ...     found = refine(MLP(depth=1), *data, 1.0)
    >>> found.moved, found.climbed, bool(found.reg < 1)
    (True, ('reg', 'noise'), True)
    """
    X = X * scales
    start: dict[str, Any] = {"reg": reg}
    climbed = [name for name in network.tunable if name in tune and name != "depth"]
    start |= {name: getattr(network, name) for name in climbed}
    if "scales" in tune:
        start["scales"] = np.ones(X.shape[1])
    lower = {name: np.zeros_like(value) for name, value in start.items()}
    # A kernel that stays as it is is computed once, and one decomposition serves every evidence.
    stays = not climbed and "scales" not in tune
    fixed = placed(network.kernels(X).ntk) if stays else None
    gaussian = isinstance(likelihood, Gaussian)
    spectrum = Spectrum.of(fixed, y, weights) if fixed is not None and gaussian else None
    if "noise" in tune:
        start["noise"] = (
            spectrum.best_noise(reg)
            if spectrum
            else estimate_noise(network.kernels(X).ntk, y, reg, weights)
        )
        squares = np.average(np.square(y), axis=0, weights=weights)
        lower["noise"] = _LEAST_NOISE * np.sqrt(squares)
    points, targets = placed(X), placed(y)

    def with_noise(p: dict[str, Any]) -> Likelihood:
        return Gaussian(p["noise"]) if "noise" in p else likelihood

    def evidence(p: dict[str, Any]) -> Array:
        if spectrum is not None:
            return spectrum.log_evidence(p["reg"], cast(Gaussian, with_noise(p)).noise)
        ntk = fixed
        if ntk is None:
            scaled = points * p.get("scales", 1.0)
            ntk = network.tuned_kernel_block(scaled, {name: p[name] for name in climbed}).ntk
        model = with_noise(p)
        loss = model if weights is None else Weighted(model, jnp.asarray(weights))
        return log_evidence(ntk, targets, p["reg"], loss)

    found = maximise_evidence(evidence, start, lower=lower)
    best = found.parameters
    changed = {name: float(best[name]) for name in climbed}
    if changed:
        network = replace(network, **changed)
    scales = scales * np.asarray(best.get("scales", 1.0))
    likelihood = with_noise(best)
    return Refined(
        network, float(best["reg"]), scales, likelihood, found.value, found.moved, tuple(start)
    )


def warn_unmoved(best: Refined) -> None:
    """Warn where a search has not left its start."""
    if not best.moved:
        warn_user(
            f"The search for {', '.join(best.climbed)} by the evidence has not left its start, "
            "though the evidence rises from there: the values are those of a scan over reg. The "
            "kernel may be too wide to be factorised: scale the features (about 1 each), or lower "
            "w_std.",
            ConvergenceWarning,
        )
