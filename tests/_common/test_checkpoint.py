"""Long runs: killed and resumed, on several devices, enlarged; the result is the same."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import ntk_uq as nuq
from ntk_uq._common.checkpoint import Checkpoint, check_directory
from ntk_uq.analytic import InfiniteEnsemble
from ntk_uq.ensemble import train_ensemble
from ntk_uq.ensemble.conjugate_gradients import ConjugateGradients
from ntk_uq.ensemble.layout import _member_bytes
from ntk_uq.ensemble.optax_method import update_rule
from ntk_uq.ensemble.trainer import _Data
from ntk_uq.networks import MLP, Architecture, Problem

# Two chunks of members; the second is not full.
MEMBERS = 10
SETUP = f"""
import os, signal, sys
import jax, jax.numpy as jnp, numpy as np
from ntk_uq import ensemble
from ntk_uq.ensemble import trainer
from ntk_uq.networks.mlp import MLP
from ntk_uq.likelihoods import Categorical
random = np.random.default_rng(0)
X = jnp.asarray(random.normal(size=(8, 3)), jnp.float32)
y = jnp.asarray(np.eye(2)[random.integers(2, size=8)], jnp.float32)
arguments = (jax.random.key(0), MLP(width=16, depth=1, activation="erf"), X, y, Categorical())
options = {{"reg": 1.0, "n_members": {MEMBERS}, "uncertainty": "posterior"}}
"""
setup: dict = {}
exec(SETUP, setup)
ARGUMENTS, OPTIONS = setup["arguments"], setup["options"]


@pytest.fixture(scope="module")
def whole():
    return train_ensemble(*ARGUMENTS, **OPTIONS)


def assert_same(a, b, members=MEMBERS):
    for x, y in zip(jax.tree.leaves(a.params), jax.tree.leaves(b.params), strict=True):
        np.testing.assert_array_equal(x[:members], y[:members])
    np.testing.assert_array_equal(a.n_iter[:members], b.n_iter[:members])
    np.testing.assert_array_equal(a.objective[:members], b.objective[:members])


def run(script, **environment):
    return subprocess.run(
        [sys.executable, "-c", SETUP + script], env={**os.environ, **environment}, text=True,
        capture_output=True, check=False,
    )  # fmt: skip


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_killed_run_resumes_to_the_same_result(whole, tmp_path):
    killed = run(
        f"""
trainer._CHECKPOINT_SECONDS = 0.0
replace = os.replace
def killing_replace(a, b):
    if "member-8" in str(b):  # while the second chunk, or its training so far, is written
        os.kill(os.getpid(), signal.SIGKILL)
    replace(a, b)
os.replace = killing_replace
ensemble.train_ensemble(*arguments, **options, checkpoint={str(tmp_path)!r})
"""
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    names = {path.name for path in tmp_path.iterdir()}
    assert {"run.json", "member-0-8.npz"} <= names
    assert any(name.endswith(".tmp") for name in names)

    seen = []
    resumed = train_ensemble(
        *ARGUMENTS,
        **OPTIONS,
        checkpoint=tmp_path,
        progress=lambda done, *_, **__: seen.append(done),
    )
    assert_same(resumed, whole)
    assert min(seen) >= 8  # the first chunk was not trained again
    assert not list(tmp_path.glob("*training*"))
    assert not list(tmp_path.glob("*.tmp"))


def test_training_goes_on_where_it_was_saved(whole, tmp_path, monkeypatch):
    class Interrupted(Exception):
        pass

    calls = []

    def interrupt(done, total, gap):
        calls.append(done)
        if len(calls) == 3:
            raise Interrupted

    monkeypatch.setattr("ntk_uq.ensemble.trainer._CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(Interrupted):
        train_ensemble(*ARGUMENTS, **OPTIONS, checkpoint=tmp_path, progress=interrupt)
    assert (tmp_path / "member-0-8-training.npz").exists()
    assert_same(train_ensemble(*ARGUMENTS, **OPTIONS, checkpoint=tmp_path), whole)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ntk_uq.ensemble.ConvergenceWarning")
def test_four_devices_give_the_result_of_one(tmp_path):
    """After as many steps, to rounding: a program for other devices is compiled another way."""
    path = tmp_path / "latents.npy"
    result = run(
        f"""
assert len(jax.devices()) == 4
options = {{**options, "uncertainty": "none", "max_iter": 8}}
np.save({str(path)!r}, ensemble.train_ensemble(*arguments, **options).latents(X))
""",
        XLA_FLAGS="--xla_force_host_platform_device_count=4",
    )
    assert result.returncode == 0, result.stderr
    one = train_ensemble(*ARGUMENTS, **{**OPTIONS, "uncertainty": "none", "max_iter": 8})
    np.testing.assert_allclose(np.load(path), one.latents(ARGUMENTS[2]), atol=1e-4)


def test_enlarged_ensemble_keeps_its_members_and_trains_the_new_ones(whole):
    few = train_ensemble(*ARGUMENTS, **{**OPTIONS, "n_members": 3})
    assert_same(few, whole, members=3)
    seen = []
    warm = train_ensemble(
        *ARGUMENTS, **OPTIONS, warm_start=few, progress=lambda done, *_, **__: seen.append(done)
    )
    assert_same(warm, whole)
    assert min(seen) >= 3
    assert len(train_ensemble(*ARGUMENTS, **{**OPTIONS, "n_members": 2}, warm_start=whole)) == 2
    with pytest.raises(ValueError, match="warm_start was trained with other reg"):
        train_ensemble(*ARGUMENTS, **{**OPTIONS, "reg": 2.0}, warm_start=few)


@pytest.mark.slow
def test_memory_limits_the_members_at_once(whole):
    """Other chunks round differently, and train the same members."""
    data = _Data(*ARGUMENTS[2:], jnp.float32(1), jnp.float32(1e-4))
    one = _member_bytes(ARGUMENTS[1], ConjugateGradients(), data)
    small = train_ensemble(*ARGUMENTS, **{**OPTIONS, "n_members": 3}, memory=2 * one)
    np.testing.assert_allclose(
        small.latents(ARGUMENTS[2]), whole.latents(ARGUMENTS[2])[:3], atol=1e-2
    )


def test_foreign_and_damaged_checkpoints_are_refused(tmp_path):
    like = {"a": np.arange(3.0), "b": np.ones((2, 2), np.float32)}
    checkpoint = Checkpoint(tmp_path / "run", {"reg": "1.0"})
    assert checkpoint.load("x", like) is None
    checkpoint.save("x", like)
    for name, values in Checkpoint(tmp_path / "run", {"reg": "1.0"}).load("x", like).items():
        np.testing.assert_array_equal(values, like[name])

    with pytest.raises(ValueError, match=r"another run: reg is 2.0, there 1.0"):
        Checkpoint(tmp_path / "run", {"reg": "2.0"})
    with pytest.raises(ValueError, match=r"x.npz is from another run: it has float64\[3\]"):
        checkpoint.load("x", {"a": np.arange(4.0), "b": like["b"]})
    path = tmp_path / "run" / "x.npz"
    whole = path.read_bytes()
    encrypted, method = whole.index(b"PK\x01\x02") + 8, whole.index(b"PK\x01\x02") + 10
    flipped = [whole[:place] + b"\x01" + whole[place + 1 :] for place in (encrypted, method)]
    for damaged in (whole[:-20], whole[:100] + b"?" + whole[101:], b"", *flipped):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"x.npz is damaged .* Delete this file"):
            checkpoint.load("x", like)
    for damaged in ("{", json.dumps([1])):
        (tmp_path / "run" / "run.json").write_text(damaged)
        with pytest.raises(ValueError, match=r"run.json is damaged"):
            Checkpoint(tmp_path / "run", {"reg": "1.0"})
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "thesis.txt").touch()
    with pytest.raises(ValueError, match=r"is no checkpoint: it has files, 'thesis.txt'"):
        Checkpoint(tmp_path / "else", {})


def test_two_processes_share_a_directory(tmp_path):
    """What one writes the other does not take away, and of two runs one is the first."""
    one = Checkpoint(tmp_path, {"reg": "1.0"})
    with open(tmp_path / "other.tmp", "wb"):
        other = Checkpoint(tmp_path, {"reg": "1.0"})
        assert (tmp_path / "other.tmp").exists()
    one.save("x", np.arange(3.0))
    np.testing.assert_array_equal(other.load("x", np.zeros(3)), np.arange(3.0))
    other.remove("x")
    assert one.load("x", np.zeros(3)) is None


def test_another_run_that_begins_at_once_is_refused(tmp_path, monkeypatch):
    """It sees no run yet, and finds one where it writes its own."""
    looks, exists = [], Path.exists

    def not_at_first(path):
        looks.append(path)
        return len(looks) > 1 and exists(path)

    (tmp_path / "run.json").write_text(json.dumps({"reg": "1.0"}))
    monkeypatch.setattr(Path, "exists", not_at_first)
    with pytest.raises(ValueError, match=r"another run: reg is 2.0, there 1.0"):
        Checkpoint(tmp_path, {"reg": "2.0"})


def test_update_rules_are_told_apart():
    """By what they do, and not by the objects that hold it."""
    rules = [
        update_rule(make())
        for make in (
            lambda: optax.adam(1e-3),
            lambda: optax.adam(1e-2),
            lambda: optax.adam(optax.cosine_decay_schedule(1e-2, 100)),
            lambda: optax.adam(optax.cosine_decay_schedule(1e-2, 200)),
            lambda: optax.sgd(1e-2, momentum=0.9),
            lambda: optax.lbfgs(),
        )
        for _ in range(2)
    ]
    assert rules[::2] == rules[1::2]
    assert len(set(rules)) == 6


def test_other_data_are_another_run(tmp_path):
    key, net, X, y, likelihood = ARGUMENTS
    options = {**OPTIONS, "uncertainty": "initialization", "n_members": 1, "checkpoint": tmp_path}
    train_ensemble(*ARGUMENTS, **options)
    with pytest.raises(ValueError, match=r"another run: X is \w+, there \w+\. Use"):
        train_ensemble(key, net, X + 1, y, likelihood, **options)


def of_closure(k):
    return MLP(width=8, depth=1, activation=lambda z: jnp.sin(k * z))


def of_module(k):
    class Network(nnx.Module):
        def __init__(self, in_features, out_features, *, rngs):
            self.hidden = nnx.Linear(in_features, 8, rngs=rngs)
            self.readout = nnx.Linear(8, out_features, rngs=rngs)

        def __call__(self, x):
            return self.readout(nnx.relu(self.hidden(x) + k))

    return Architecture(Network)


@pytest.mark.parametrize("network", [of_closure, of_module])
def test_networks_that_no_name_tells_apart_are_told_apart(tmp_path, network):
    """And one that is defined anew is the same."""
    key, _, *data = ARGUMENTS
    options = {**OPTIONS, "uncertainty": "initialization", "n_members": 1, "checkpoint": tmp_path}
    first = train_ensemble(key, network(1.0), *data, **options)
    assert_same(train_ensemble(key, network(1.0), *data, **options), first, members=1)
    with pytest.raises(ValueError, match=r"another run: network at points is \[.*\], there \[-?\d"):
        train_ensemble(key, network(1.1), *data, **options)


def test_values_are_compared_but_for_the_rounding_of_another_machine(tmp_path):
    """Which is of their size, not of each: what is nearly zero is rounded as the others are."""
    values = [1.0, -2.5, 1e-6]
    Checkpoint(tmp_path, {"reg": "1.0", "values": values})
    Checkpoint(tmp_path, {"reg": "1.0", "values": [1.0 + 1e-4, -2.5 - 1e-4, -1e-5]})
    for other in ([1.01, -2.5, 1e-6], [1.0, -2.5, np.nan], [1.0, -2.5]):
        with pytest.raises(
            ValueError, match=r"values is \[1\S*, -2.5.*\], there \[1, -2.5, 1e-06\]"
        ):
            Checkpoint(tmp_path, {"reg": "1.0", "values": other})
    # Of a version that did not write them.
    with pytest.raises(ValueError, match=r"others is \[1\], there None"):
        Checkpoint(tmp_path, {"reg": "1.0", "others": [1.0]})


def test_what_can_be_no_checkpoint_is_refused_before_the_work(tmp_path, monkeypatch):
    """Of the estimator before reg is chosen, and of the producer before its kernel."""

    def forbidden(*args, **kwargs):
        raise AssertionError("the work has begun")

    monkeypatch.setattr("ntk_uq.selection.choose", forbidden)
    monkeypatch.setattr("ntk_uq.analytic.producer.tiled_ntk", forbidden)
    (tmp_path / "thesis.txt").touch()
    X, y = np.asarray(ARGUMENTS[2], float), np.asarray(ARGUMENTS[3], float)
    task = Problem(X, y, ARGUMENTS[4], 1.0, jax.random.key(0), MLP(width=16, depth=1))
    for directory, said in (
        (5, "path of a directory"),
        (tmp_path, "it has files, 'thesis.txt'"),
        (tmp_path / "thesis.txt" / "run", "thesis.txt is a file"),
    ):
        with pytest.raises(ValueError, match=said):
            nuq.NTKClassifier(reg="cv", checkpoint=directory).fit(X, y[:, 0])
        with pytest.raises(ValueError, match=said):
            InfiniteEnsemble(prior_functions="networks", checkpoint=directory).fit(task)
        with pytest.raises(ValueError, match=said):
            train_ensemble(*ARGUMENTS, **OPTIONS, checkpoint=directory)
    check_directory(tmp_path / "new" / "run")  # which the run will make
    check_directory(None)
    assert not (tmp_path / "new").exists()
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(ValueError, match="cannot be written: no permission in"):
        check_directory(tmp_path / "new" / "run")
