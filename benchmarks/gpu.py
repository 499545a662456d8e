"""What a GPU gains, and whether products in single precision lose digits there.

python benchmarks/gpu.py            # some minutes; without a GPU it says so and ends

It prints seconds of the main job (draws of the infinite ensemble, a finite one, a small report) on
the GPU and, in a process of its own, on the CPU, with the largest difference of their predictions;
the errors of products in single precision with the package's setting, with JAX's default, which is
TF32 on GPUs that have it, and with "highest"; and seconds of tiles of Theta, of products with them,
and of training 64 members, so many at once.
"""

import argparse
import io
import os
import re
import subprocess
import sys
import tempfile
import time
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from _timing import digits, heading, take_turns

import ntk_uq as nuq
from ntk_uq import ensemble
from ntk_uq._common.operators import Dense
from ntk_uq._common.rules import own_rules
from ntk_uq._common.tiles import TILE_ROWS, SymmetricTiles
from ntk_uq.cli import main as shell
from ntk_uq.datasets import load_dataset, split
from ntk_uq.kernels import empirical_ntk

# What may be said of `jax_default_matmul_precision`.
SETTINGS = {"the package's": None, "JAX's default": "default", "highest": "highest"}
ROUNDS = 3


def report(quick, folder):
    """What `make report` does, in small."""
    training = ["--n-train", "100", "--n-test", "100", "--members", "8", "--draws", "64"]
    length = "8" if quick else "100"
    chains = ["--warmup", length, "--samples", length]
    command = ["compare", "--reg", "1", *training, *chains, "--output", str(folder / "report.html")]
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        shell(command)


def main_job(quick, folder):
    """Functions of the main job: their probabilities, but for those of the report."""
    n, draws, members = (60, 16, 4) if quick else (300, 256, 64)
    parts = split(load_dataset("digits"), n_train=n)

    def predictions(model):
        return model.fit(parts.X_train, parts.y_train).predict_proba(parts.X_test[:200])

    net = nuq.MLP(width=32 if quick else 512)
    few = {"reg": 0.1, "n_draws": draws}
    return {
        f"{draws} draws, a factor": lambda: predictions(nuq.NTKClassifier(net, **few)),
        f"{draws} draws, networks": lambda: predictions(
            nuq.NTKClassifier(net, prior_functions="networks", **few)
        ),
        f"{members} members": lambda: predictions(
            nuq.EnsembleClassifier(net, reg=1.0, n_members=members)
        ),
        "report": lambda: report(quick, folder),
    }


def tile_work(quick):
    """A tile of Theta of 784 features, one in single precision, and products with such a matrix."""
    rows = 64 if quick else TILE_ROWS
    x = np.random.default_rng(0).normal(size=(2 * rows, 784))
    net, single = nuq.MLP(), jnp.asarray(x, jnp.float32)
    theta = net.kernels(x).ntk
    tiles = SymmetricTiles(len(x)).fill(lambda i, j: theta[i, j])
    matrix = Dense(jnp.asarray(theta, jnp.float32))
    v = np.random.default_rng(1).normal(size=(len(x), 10, 64)).astype(np.float32)
    on_device, product = jnp.asarray(v), jax.jit(Dense.product)
    return {
        f"tile of {rows} x {rows}": lambda: net.kernels(x[:rows], x[rows:]).ntk,
        "the same in float32": lambda: net.kernel_block(single[:rows], single[rows:]).ntk,
        "product with tiles (on the CPU)": lambda: tiles.product(v.reshape(len(x), -1)),
        "product with a matrix": lambda: product(matrix, on_device),
    }


def measured(quick):
    """Of this device: seconds of first and later calls, predictions, and products by precision."""
    first, later, found = {}, {}, {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        jax.config.update("jax_dump_ir_to", name)
        for job, run in main_job(quick, folder).items():
            seconds = []
            for _ in range(2):
                start = time.perf_counter()
                found[job] = run()
                seconds.append(time.perf_counter() - start)
            first[job], later[job] = seconds
        jax.config.update("jax_dump_ir_to", "")
        products = products_in_single(folder)
    tiles = tile_work(quick)
    times = take_turns(tiles, 1 if quick else ROUNDS)
    later |= {name: times[name] for name in tiles}
    return {"first": first, "later": later, "found": found, "products": products}


def products_in_single(folder):
    """How many products of float32 numbers the programs there have, and how many are exact."""
    lines = [line for path in folder.glob("*.mlir") for line in path.read_text().splitlines()]
    lines = [line for line in lines if re.search(r"stablehlo\.(dot_general|convolution)\b", line)]
    lines = [line for line in lines if re.search(r"-> tensor<(\d+x)*f32>", line)]
    return len(lines), sum("HIGHEST" in line for line in lines)


def measured_on_cpu(quick):
    """The same in a process that has nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "measured.npy"
        command = [sys.executable, __file__, "--keep", str(path), *["--quick"] * quick]
        subprocess.run(command, check=True, env=os.environ | {"JAX_PLATFORMS": "cpu"})
        return np.load(path, allow_pickle=True).item()


def against_the_cpu(quick):
    """Both, side by side."""
    here, cpu = measured(quick), measured_on_cpu(quick)
    total, exact = here["products"]
    print(f"products in single precision of the programs: {total}, of which in full: {exact}")
    for job, seconds in here["later"].items():
        line = f"{job}: {cpu['later'][job] / seconds:.2f} times faster than the CPU ("
        line += f"{seconds:.3g} s, {cpu['later'][job]:.3g} s"
        if job in here["first"]:
            line += f"; first calls {here['first'][job]:.3g} s, {cpu['first'][job]:.3g} s"
        if here["found"].get(job) is not None:
            apart = np.max(np.abs(here["found"][job] - cpu["found"][job]))
            line += f"; probabilities differ by {apart:.0e}"
        print(f"{line})", flush=True)


def precision(quick):
    """Relative errors of products in single precision, and of training, by JAX's setting."""
    n, width, members = (60, 32, 2) if quick else (600, 512, 16)
    x, y = digits(n)
    net, key = nuq.MLP(width=width), jax.random.key(0)
    params, single = net.init(key, x.shape[1], 10), jnp.asarray(x, jnp.float32)
    targets = jnp.asarray(y, jnp.float32)
    theta = jnp.asarray(net.kernels(x).ntk, jnp.float32)
    v = jax.random.normal(key, (n, 10, 16))
    columns = v.reshape(n, -1)

    # Each with its arguments in single precision; in double precision they are the reference.
    work = {
        "Theta of points": (lambda x: net.kernel_block(x).ntk, (single,)),
        "Theta v": (lambda a, b: Dense(a).product(b), (theta, v)),
        "any other A @ B": (own_rules()(jnp.matmul), (theta, columns)),
        "outputs of a network": (net.apply, (params, single)),
        "its tangent kernel": (lambda p, x: empirical_ntk(net, p, x, trace=True), (params, single)),
    }
    for name, (function, arguments) in work.items():
        with jax.enable_x64(True):
            double = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), arguments)
            reference = np.asarray(function(*double))
        words = []
        for setting, value in SETTINGS.items():
            with jax.default_matmul_precision(value):
                error = np.asarray(function(*arguments)) - reference
            words.append(f"{setting} {np.std(error) / np.std(reference):.1e}")
        print(f"error of {name}: {', '.join(words)}", flush=True)
    for setting, value in SETTINGS.items():
        with jax.default_matmul_precision(value):
            start = time.perf_counter()
            trained = ensemble.train_ensemble(
                key, net, single, targets, nuq.Categorical(), reg=0.01, n_members=members
            )
            seconds = time.perf_counter() - start
        print(
            f"training with {setting}: {np.sum(trained.converged)} of {members} members at a "
            f"minimum, {np.mean(trained.n_iter):.0f} iterations, mean gradient "
            f"{np.mean(trained.grad_norm):.1e}, {seconds:.1f} s with compilation",
            flush=True,
        )


def chunks(quick):
    """Seconds of training members, by how many are trained at once."""
    n, width, members = (60, 32, 4) if quick else (300, 512, 64)
    x, y = (jnp.asarray(a, jnp.float32) for a in digits(n))
    sizes = [1, members] if quick else [4, 16, 32, 64]

    def train(at_once):
        settings = {"_AT_ONCE": at_once, "_AT_ONCE_ACCELERATED": at_once, "_CACHE_BYTES": 2**60}
        with mock.patch.multiple("ntk_uq.ensemble.layout", **settings):
            return ensemble.train_ensemble(
                jax.random.key(0), nuq.MLP(width=width), x, y, nuq.Categorical(), reg=1.0,
                n_members=members,
            ).params  # fmt: skip

    times = take_turns({str(size): lambda size=size: train(size) for size in sizes}, 1)
    words = ", ".join(f"{size} at once {times[str(size)]:.2f} s" for size in sizes)
    print(f"{members} members of width {width}, {n} points: {words}")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small and few, to see it run")
    # For tests: as if this machine's CPU were a GPU.
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu", help=argparse.SUPPRESS)
    parser.add_argument("--keep", help=argparse.SUPPRESS)  # what a process of its own is told
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.keep:
        np.save(options.keep, measured(options.quick), allow_pickle=True)
        return
    device = jax.devices()[0]
    if device.platform == "cpu" and options.device != "cpu":
        print("JAX sees no GPU here, only a CPU: nothing to measure.")
        return
    heading(f"{device.device_kind} ({device.platform}) against the CPU")
    against_the_cpu(options.quick)
    precision(options.quick)
    chunks(options.quick)


if __name__ == "__main__":
    main()
