"""Uncertainty of a trained convolutional network: time and log loss, and beside laplace-torch's.

A network of 87,178 parameters, as tutorials have it, is trained by optax on digits of 8 x 8 (half
of them moved by a pixel), and linearised on the images that it was trained on, with the prior of
its weight decay. Draws of the posterior, and the mode, on all of them. On fewer images, where it
can run, laplace-torch's functional Laplace approximation of the same network and weights, against
ours: `--laplace-python` is the Python of its environment (laplace-torch 0.3, torch 2.13.0), its
kernel that of all outputs. Of 2,000 images (`--points`) the kernel has 20,000 rows: one triangle of
it takes 0.8 GB.

    python benchmarks/linearized.py [--laplace-python .venv-rivals/laplace/bin/python]
"""

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from sklearn.datasets import load_digits
from sklearn.metrics import log_loss

import ntk_uq as nuq

RIVAL = Path(__file__).parent / "rivals" / "functional_laplace.py"


class ConvolutionalNetwork(nnx.Module):
    def __init__(self, rngs):
        self.conv1 = nnx.Conv(1, 32, (3, 3), rngs=rngs)
        self.conv2 = nnx.Conv(32, 64, (3, 3), rngs=rngs)
        self.hidden = nnx.Linear(256, 256, rngs=rngs)
        self.readout = nnx.Linear(256, 10, rngs=rngs)

    def __call__(self, x):
        for conv in (self.conv1, self.conv2):
            x = nnx.avg_pool(nnx.relu(conv(x)), (2, 2), strides=(2, 2))
        return self.readout(nnx.relu(self.hidden(x.reshape(len(x), -1))))


def images(n_train, n_test):
    """Digits, and copies moved to the right by a pixel: training and test images."""
    X, y = load_digits(return_X_y=True)
    X = X.reshape(-1, 8, 8, 1) / 16
    order = np.random.default_rng(0).permutation(len(X))
    parts = []
    for rows, n in ((order[:1000], n_train), (order[1000:], n_test)):
        moved = np.roll(X[rows], 1, axis=2)
        both, labels = np.concatenate([X[rows], moved]), np.tile(y[rows], 2)
        mixed = np.random.default_rng(1).permutation(len(both))[:n]
        parts += [both[mixed], labels[mixed]]
    return parts


def train(X, y, decay, steps):
    """Adam on the sum of losses and decay / 2 times the squared norm: the prior N(0, I / decay)."""
    model = ConvolutionalNetwork(nnx.Rngs(0))
    schedule = optax.cosine_decay_schedule(3e-3, steps)
    optimizer = nnx.Optimizer(model, optax.adam(schedule), wrt=nnx.Param)
    points, labels = jnp.asarray(X, jnp.float32), jnp.asarray(y)

    @nnx.jit
    def step(model, optimizer):
        def objective(model):
            losses = optax.softmax_cross_entropy_with_integer_labels(model(points), labels)
            weights = jax.tree.leaves(nnx.state(model, nnx.Param))
            return jnp.sum(losses) + 0.5 * decay * sum(jnp.sum(w**2) for w in weights)

        optimizer.update(model, nnx.grad(objective)(model))

    for _ in range(steps):
        step(model, optimizer)
    return model


def timed(clf, X, y, X_test, y_test):
    """Wall and processor seconds of fit and prediction, and log loss."""
    wall, cpu = time.perf_counter(), time.process_time()
    clf.fit(X, y)
    fitted = time.perf_counter()
    proba = clf.predict_proba(X_test)
    end = time.perf_counter(), time.process_time()
    loss = log_loss(y_test, proba)
    print(
        f"  fit {fitted - wall:.1f} s, prediction of {len(X_test)} {end[0] - fitted:.1f} s "
        f"(processor {end[1] - cpu:.1f} s), log loss {loss:.4f}",
        flush=True,
    )
    return end[0] - wall, loss


def rival(python, model, decay, data):
    """Seconds and log loss of functional Laplace, in its own environment."""
    with tempfile.TemporaryDirectory() as folder:
        state = {".".join(map(str, k)): np.asarray(v[...]) for k, v in
                 nnx.to_flat_state(nnx.state(model, nnx.Param))}  # fmt: skip
        path = Path(folder) / "problem.npz"
        np.savez(path, decay=decay, **dict(zip(("X", "y", "X_test", "y_test"), data, strict=True)),
                 **state)  # fmt: skip
        command = [python, str(RIVAL), str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=500)
    parser.add_argument("--test", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=64)
    parser.add_argument("--decay", type=float, default=0.3)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--laplace-python")
    parser.add_argument("--laplace-points", type=int, default=100)
    args = parser.parse_args()

    X, y, X_test, y_test = images(args.points, args.test)
    start = time.perf_counter()
    model = train(X, y, args.decay, args.steps)
    logits = np.asarray(model(jnp.asarray(X_test, jnp.float32)))
    loss = log_loss(y_test, np.asarray(jax.nn.softmax(logits)))
    print(f"network trained in {time.perf_counter() - start:.0f} s, log loss {loss:.4f}")
    net = nuq.Linearized(model, prior_mean="zero")
    settings = {"reg": args.decay, "uncertainty": "posterior", "progress": False}
    draws = nuq.NTKClassifier(net, n_draws=args.draws, **settings)
    few = slice(0, args.laplace_points)
    if args.laplace_python:
        for method in ("gaussian", "exact"):
            print(f'{args.laplace_points} images, method="{method}"')
            clf = nuq.NTKClassifier(net, n_draws=args.draws, method=method, **settings)
            first, _ = timed(clf, X[few], y[few], X_test, y_test)
            again, loss = timed(clf, X[few], y[few], X_test, y_test)
            if method == "gaussian":
                data = (X[few], y[few], X_test, y_test)
                theirs = rival(args.laplace_python, model, args.decay, data)
                print(f"laplace-torch, functional: {theirs}")
            faster = [f"{theirs['seconds'] / ours:.1f}" for ours in (first, again)]
            print(f"  {faster[0]} times faster for the first time, as programs are compiled, then")
            print(f"  {faster[1]} times; log loss {loss:.4f}: {theirs['log_loss']:.4f}")
    print(f"{args.points} images, {args.draws} draws")
    timed(draws, X, y, X_test, y_test)


if __name__ == "__main__":
    main()
