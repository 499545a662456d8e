"""Several processes on one machine against one: the same results, bit for bit."""

import json
import os
import pickle
import signal
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
from example_tables import CLASSES

import ntk_uq as nuq
from ntk_uq._common.processes import divided, gather, join, once

PRODUCERS = """
import jax
import jax.numpy as jnp
import numpy as np

import ntk_uq as nuq
from ntk_uq import analytic, bayes, ensemble
from ntk_uq._common.checkpoint import digest

key, net = jax.random.key(0), nuq.MLP(width=8, depth=1)
random = np.random.default_rng(0)
X = jnp.asarray(random.normal(size=(6, 2)), jnp.float32)
y = jnp.asarray(np.eye(2)[[0, 1, 1, 0, 1, 0]], jnp.float32)
kernels = net.kernel_block(X)
# Of members and draws more than one chunk, of which the last is not full.
of_all = {
    "members": ensemble.train_ensemble(
        key, net, X, y, nuq.Categorical(), reg=1.0, n_members=11
    ).params,
    "draws": analytic.exact_predictor(
        key, kernels, y, 1.0, nuq.Categorical(), "initialization", 40, tol=1e-4
    ).alpha,
    "chains": bayes.sample_latents(
        key, kernels.nngp, y, nuq.Categorical(), sampler="ess", num_warmup=5, num_samples=7,
        num_chains=3,
    ).latents,
}
results = {name: digest(arrays) for name, arrays in of_all.items()}

def draws_of_networks(storage):
    problem = nuq.networks.Problem(X, y, nuq.Categorical(), 0.5, key, net)
    one = analytic.InfiniteEnsemble(
        n_draws=4, prior_functions="networks", uncertainty="posterior", storage=storage
    ).fit(problem).predictor
    return one.latents(np.asarray(kernels.ntk, float), np.asarray(X)), one.gap
"""

TOGETHER = (
    """
import json, pathlib, sys
from ntk_uq._common import processes, tiles
from ntk_uq._common.divided_tiles import DividedTiles, found_by_first, together
from ntk_uq._common.files import write_result

processes.join()
"""
    + PRODUCERS
    + """
p = jax.process_index()

def fails(share):
    if 1 in share:
        raise ValueError("no luck")
    return list(share)

def told(call):
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"

results["failure"] = told(lambda: processes.divided(fails, range(2), "work"))
results["difference"] = told(lambda: processes.gather(p, f"work of {p}"))
results["large"] = [int(a.sum()) for a in processes.gather(np.full(2**15 + p, p), "large")]

tiles.TILE_ROWS = 3  # several, of which the last are not full
root = random.normal(size=(8, 8))
matrix = root @ root.T
shared = DividedTiles(8, np.float64).fill(lambda rows, columns: matrix[rows, columns])
v = random.normal(size=(8, 5))
with together(shared):  # one asks for more, in other shapes and precisions
    asked = [v.astype(np.float32), v[:, :2], v[:, :1]] if p == 0 else [v[:, 3:]]
    errors = [np.abs(shared.product(of) - matrix @ of).max() for of in asked]
results["products"] = float(max(errors))
results["diagonal"] = bool(np.array_equal(shared.diagonal(), np.diagonal(matrix)))
results["tiles"] = [list(place) for place in shared._tiles]
results["first"] = found_by_first(shared, lambda: (p, float(shared.product(v).sum())), "a sum")

def until_one_fails():
    with together(shared):
        while p == 0:
            shared.product(v)
        raise ValueError("no more")

results["failed turn"] = told(until_one_fails)

results["draws of networks"] = [
    np.asarray(part, float).tolist() for part in draws_of_networks("processes")
]
folder = pathlib.Path(sys.argv[1])
write_result(folder / "written", lambda file: file.write(bytes([p])))
(folder / f"{p}.json").write_text(json.dumps(results))
"""
)


def start(n, *command, **options):
    """The command in n processes of `jax.distributed`, on a port that is free."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{found.getsockname()[1]}"
    settings = os.environ | {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": str(n)}
    return [
        subprocess.Popen(command, env=settings | {"JAX_PROCESS_ID": str(p)}, text=True, **options)
        for p in range(n)
    ]


def test_two_processes_have_what_one_has(tmp_path):
    """Members, draws and chains; failures and differences are told; the first writes."""
    alone: dict = {}
    exec(PRODUCERS, alone)  # compiles for the others
    both = start(2, sys.executable, "-c", TOGETHER, str(tmp_path))
    # Both compile, a minute of two idle cores.
    assert [process.wait(timeout=900) for process in both] == [0, 0]
    first, second = (json.loads((tmp_path / f"{p}.json").read_text()) for p in range(2))
    for name, digest in alone["results"].items():
        assert first[name] == second[name] == digest, name
    assert second["failure"] == "ValueError: no luck"
    assert "Process 1 of 2 ended with ValueError: no luck" in first["failure"]
    assert "must run the same program" in first["difference"]
    assert "work of 1" in first["difference"]
    assert first["large"] == second["large"] == [0, 2**15 + 1]
    assert (tmp_path / "written").read_bytes() == b"\0"
    _check_rows(first, second)
    assert first["draws of networks"] == second["draws of networks"]
    _check_draws(alone, *map(np.array, first["draws of networks"]))


def _check_draws(alone, latents, gap):
    """Of networks, with a matrix of which each process has a part and with one that is whole."""
    expected, expected_gap = alone["draws_of_networks"](None)
    # In standard deviations of the posterior, which are below those of the prior.
    deviations = np.sqrt(np.diagonal(alone["kernels"].ntk) / 0.5)
    apart = np.abs(latents - expected).max(axis=2) / deviations
    bound = np.sqrt(2 * gap) + np.sqrt(2 * np.asarray(expected_gap))
    assert np.all(apart <= bound[:, None] + 1e-5)
    assert latents.std(axis=0).min() > 0


def _check_rows(first, second):
    """Products with a matrix of which each has a part."""
    held = first["tiles"] + second["tiles"]
    assert sorted(held) == [[i, j] for i in range(3) for j in range(i + 1)]
    assert len(first["tiles"]) == len(second["tiles"])
    assert first["products"] < 1e-4  # one of its products is in single precision
    assert second["products"] < 1e-12
    assert first["diagonal"]
    assert second["diagonal"]
    assert first["first"] == second["first"]
    assert first["first"][0] == 0
    assert second["failed turn"] == "ValueError: no more"
    assert "Process 1 of 2 ended with ValueError: no more" in first["failed turn"]


def test_one_process_does_all():
    done = []
    assert divided(lambda share: [item**2 for item in share], range(3), "squares") == [0, 1, 4]
    assert gather("a", "letters") == ["a"]
    once(lambda: done.append(1), "once")
    assert done == [1]


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"}, "missing: JAX_COORDINATOR_ADDRESS"),
        (
            {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "one"},
            "whole numbers",
        ),
        ({}, "no cluster was found"),
    ],
)
def test_what_the_environment_must_say(environment, words, monkeypatch):
    def initialize():  # as JAX does where it finds no cluster
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with pytest.raises(ValueError, match=words):
        join(environment)


ESTIMATORS = """
import pathlib, pickle, sys
import jax
if len(sys.argv) > 2:
    from ntk_uq._common.processes import join
    join()
import numpy as np
import ntk_uq as nuq

random = np.random.default_rng(0)
X = random.normal(size=(40, 3))
y = (X[:, 0] + 0.3 * random.normal(size=40) > 0).astype(int)
net = nuq.MLP(width=16, depth=1)
models = [
    nuq.EnsembleClassifier(net, n_members=20, uncertainty="posterior"),
    nuq.NTKClassifier(n_draws=100),
    nuq.NTKClassifier(net, n_draws=100, uncertainty="posterior"),
    nuq.NTKClassifier(net, n_draws=70, prior_functions="networks"),
    nuq.NTKRegressor(net, method="exact", n_draws=70),
    nuq.BayesianClassifier(net, num_warmup=100, num_samples=100, num_chains=5),
]
predictions = [
    model.fit(X, y).predict_distribution(X[:7]).samples for model in models
]
pathlib.Path(sys.argv[1], str(jax.process_index())).write_bytes(pickle.dumps(predictions))
"""


@pytest.mark.slow
def test_four_processes_fit_what_one_fits(tmp_path):
    quiet = {"stdout": subprocess.DEVNULL}
    command = (sys.executable, "-W", "ignore", "-c", ESTIMATORS)
    subprocess.run((*command, str(tmp_path)), check=True)
    alone = pickle.loads((tmp_path / "0").read_bytes())
    several = start(4, *command, str(tmp_path), "together", **quiet)
    assert [process.wait(timeout=900) for process in several] == [0] * 4
    for p in range(4):
        for one, other in zip(alone, pickle.loads((tmp_path / str(p)).read_bytes()), strict=True):
            np.testing.assert_array_equal(one, other)


LOST = """
import os, pathlib, signal, sys
import jax
jax.distributed.initialize(
    os.environ["JAX_COORDINATOR_ADDRESS"], 2, int(os.environ["JAX_PROCESS_ID"]),
    heartbeat_timeout_seconds=10,
)
import numpy as np
import ntk_uq as nuq
from ntk_uq._common.checkpoint import Checkpoint

folder, last = pathlib.Path(sys.argv[1]), sys.argv[2] == "dies"
save = Checkpoint.save

def save_and_die(self, name, tree):
    save(self, name, tree)
    if last and jax.process_index() == 1:
        os.kill(os.getpid(), signal.SIGKILL)

Checkpoint.save = save_and_die
X = np.linspace(-1, 1, 8)[:, None]
model = nuq.EnsembleClassifier(
    nuq.MLP(width=8, depth=1), n_members=32, checkpoint=folder / "run"
).fit(X, X[:, 0] > 0)
nuq.save(model, folder / "model.ntk")
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_lost_process_ends_all_and_its_work_is_kept(tmp_path):
    command = (sys.executable, "-c", LOST, str(tmp_path))
    both = start(2, *command, "dies", stderr=subprocess.PIPE)
    _, said = both[0].communicate(timeout=300)
    assert both[0].returncode != 0
    both[1].communicate()
    assert both[1].returncode == -signal.SIGKILL
    assert "another task died" in said
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "run").glob("*.npz")}
    assert "member-16-24.npz" in kept
    assert "member-24-32.npz" not in kept
    assert [process.wait(timeout=300) for process in start(2, *command, "lives")] == [0, 0]
    for name, written in kept.items():
        assert (tmp_path / "run" / name).stat().st_mtime_ns == written
    X = np.linspace(-1, 1, 8)[:, None]
    alone = nuq.EnsembleClassifier(nuq.MLP(width=8, depth=1), n_members=32).fit(X, X[:, 0] > 0)
    again = nuq.load(tmp_path / "model.ntk")
    np.testing.assert_array_equal(again.predict_proba(X), alone.predict_proba(X))


@pytest.mark.slow
def test_the_shell_in_two_processes(tmp_path):
    """The first speaks and writes, and the model is that of one process."""
    table = tmp_path / "train.csv"
    table.write_text(CLASSES)
    shell = (sys.executable, "-m", "ntk_uq.cli")
    fit = (*shell, "fit", str(table), "--target", "y", "--draws", "40", "--reg", "1")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    both = start(2, *fit, "-o", str(tmp_path / "two.ntk"), "--distributed", **pipes)
    (first, _), (second, _) = (process.communicate(timeout=300) for process in both)
    assert [process.returncode for process in both] == [0, 0]
    assert "The model is in" in first
    assert "The model" not in second
    subprocess.run((*fit, "-o", str(tmp_path / "one.ntk")), check=True, stdout=subprocess.DEVNULL)
    predictions = []
    for name in ("one", "two"):
        model, written = tmp_path / f"{name}.ntk", tmp_path / f"{name}.csv"
        subprocess.run((*shell, "predict", model, table, "-o", written), check=True)
        predictions.append(written.read_bytes())
    assert predictions[0] == predictions[1]
