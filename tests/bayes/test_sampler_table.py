"""The table of samplers: whatever stands in it is known everywhere, and nothing else is."""

import re
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from ntk_uq import MLP, BayesianRegressor, bayes
from ntk_uq.bayes import samplers
from ntk_uq.bayes.samplers import (
    SAMPLERS,
    ChainSampler,
    DrawSampler,
    EllipticalSlices,
    NoUTurn,
    Sampler,
    Variational,
    sampler_named,
    samplers_of,
)

X = np.linspace(-1, 1, 6)[:, None]
Y = np.sin(2 * X[:, 0])
COUNTS = {"num_warmup": 10, "num_samples": 20, "num_chains": 2}


@dataclass(frozen=True)
class Slower(EllipticalSlices):
    """A chain that only the table knows."""

    name: ClassVar[str] = "slower"
    title: ClassVar[str] = "slower slices"
    moves_further: ClassVar[str | None] = "ess"

    def work(self, diagnostics):
        return {"Likelihoods": f"{diagnostics.steps_per_draw:.0f}"}


@dataclass(frozen=True)
class Other(Variational):
    """An approximation that only the table knows."""

    name: ClassVar[str] = "other"
    title: ClassVar[str] = "another approximation"


def fitted(sampler):
    net = MLP(width=4, depth=1)
    return BayesianRegressor(net, sampler=sampler, noise=0.3, **COUNTS).fit(X, Y)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ntk_uq.bayes.SamplingWarning")
def test_a_chain_is_known_everywhere(monkeypatch):
    monkeypatch.setitem(SAMPLERS, "slower", Slower())
    here, known = fitted("slower"), fitted("ess")
    np.testing.assert_array_equal(here.draws_.latents, known.draws_.latents)
    assert here.draws_.sampler == here.diagnostics_.sampler == "slower"
    assert here.diagnostics_.work == {"Likelihoods": f"{here.diagnostics_.steps_per_draw:.0f}"}
    assert any('or use sampler="ess"' in text for text in here.diagnostics_.warnings)
    costs = [bayes.estimate_cost(5, 2, **COUNTS, sampler=name) for name in ("slower", "ess")]
    assert costs[0] == costs[1]
    # Two chains of forty steps in all: what is drawn is judged, so the prediction has chains.
    assert here.predict_distribution(X).n_chains == 2


def test_an_approximation_is_known_everywhere(monkeypatch):
    monkeypatch.setitem(SAMPLERS, "other", Other())
    here = fitted("other")
    np.testing.assert_array_equal(here.draws_.latents, fitted("vi").draws_.latents)
    assert here.diagnostics_ is None
    with pytest.raises(ValueError, match="sampler='other' are independent draws"):
        bayes.diagnostics(here.draws_)
    with pytest.raises(ValueError, match=r"Another approximation on 6 points .* would take"):
        BayesianRegressor(sampler="other", noise=1.0, num_samples=10**9).fit(X, Y)


def test_names_are_those_of_the_table():
    assert [name for name, sampler in SAMPLERS.items() if name != sampler.name] == []
    titles = [sampler.title for sampler in SAMPLERS.values()]
    assert len(set(titles)) == len(titles)
    assert sampler_named("ess", "sampler must be", ChainSampler) is SAMPLERS["ess"]


@pytest.mark.parametrize("kind", [Sampler, DrawSampler, ChainSampler])
def test_other_names_are_refused_with_those_that_there_are(kind):
    known = samplers_of(kind)
    for name in ("gibbs", None, ["nuts"], *(SAMPLERS.keys() - known)):
        with pytest.raises(ValueError, match=r"takes sampler .*; got ") as caught:
            sampler_named(name, "this takes sampler", kind)
        assert re.findall('"(.*?)"', str(caught.value)) == list(known)


def test_the_contents_page_lists_them_by_kind():
    listed = re.findall('^"(.*)"$', samplers.__doc__, flags=re.MULTILINE)
    chains = samplers_of(ChainSampler)
    assert listed == [*chains, *(name for name in SAMPLERS if name not in chains)]


def test_what_draws_nothing_has_no_cost_of_draws():
    with pytest.raises(ValueError, match=r'takes sampler "nuts", .*; got .laplace.'):
        bayes.estimate_cost(5, 1, **COUNTS, sampler="laplace")


def test_settings_that_are_left_out_are_the_samplers_own():
    assert NoUTurn(target_accept_prob=0.9).tuned(target_accept_prob=None).target_accept_prob == 0.9
    assert NoUTurn().tuned(target_accept_prob=0.7, thin=3) == NoUTurn(target_accept_prob=0.7)
