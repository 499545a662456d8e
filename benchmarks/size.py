"""Seconds and peak memory of fitting many points, against what `estimate_memory` predicts.

python benchmarks/size.py                     # a table: one size, parts and memory
python benchmarks/size.py --data images --points 60000 --draws 64 --reg 0.01 --test 10000
python benchmarks/size.py --finite --data images --points 60000 --reg 0.01 --test 10000
python benchmarks/size.py --against           # networks against a factor of the kernel
python benchmarks/size.py --scaling           # the exponent of the seconds in the points
python benchmarks/size.py --choosing          # is reg, chosen, the best of a grid?
python benchmarks/size.py --width             # what the width of the prior's networks changes
"""

import argparse
import sys
import tempfile
import threading
import time
from contextlib import contextmanager

import numpy as np
import optax
import psutil
from scipy.ndimage import affine_transform
from sklearn.base import clone
from sklearn.datasets import load_digits

import ntk_uq.analytic.network_draws as networks
from ntk_uq import MLP, EnsembleClassifier, NTKClassifier
from ntk_uq.analytic import estimate_memory

# Of scikit-learn's digits: tests are drawn from these, training points from the others.
HELD_OUT = 500


def normals(n, classes, n_test):
    """Twenty features, and classes that depend on some of them: points, labels, and tests."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n + n_test, 20))
    labels = np.argmax(x[:, :classes] + rng.normal(size=(len(x), 1)), axis=1)
    return x[:n], labels[:n], x[n:], labels[n:]


def digits(n, classes, n_test):
    """Scikit-learn's digits, shifted by up to a pixel, as often as it takes."""
    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8) / 4 - 2
    rng = np.random.default_rng(0)
    order = rng.permutation(len(images))
    chosen = np.concatenate([rng.choice(order[HELD_OUT:], n), rng.choice(order[:HELD_OUT], n_test)])
    shifts = rng.integers(-1, 2, (n + n_test, 2))
    x = np.stack(
        [np.roll(images[i], s, (0, 1)).ravel() for i, s in zip(chosen, shifts, strict=True)]
    )
    return x[:n], labels[chosen[:n]], x[n:], labels[chosen[n:]]


def images(n, classes, n_test):
    """Scikit-learn's digits on 28 x 28 pixels, turned, slanted and shifted at random."""
    small, labels = load_digits(return_X_y=True)
    small = np.pad(small.reshape(-1, 8, 8) / 16, ((0, 0), (1, 1), (1, 1)))
    rng = np.random.default_rng(0)
    order = rng.permutation(len(small))
    chosen = np.concatenate([rng.choice(order[HELD_OUT:], n), rng.choice(order[:HELD_OUT], n_test)])
    middle, middle_of_small = np.full(2, 13.5), np.full(2, 4.5)

    def drawn(image):
        angle, slant, size = rng.normal(0, 0.12), rng.normal(0, 0.1), rng.normal(1, 0.06)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        matrix = turn @ np.array([[1.0, slant], [0.0, 1.0]]) * 10 / 28 * size
        offset = middle_of_small + rng.uniform(-0.6, 0.6, 2) - matrix @ middle
        return affine_transform(image, matrix, offset, (28, 28), np.float32, order=1)

    x = np.stack([drawn(small[i]).ravel() for i in chosen])
    return x[:n], labels[chosen[:n]], x[n:], labels[chosen[n:]]


DATA = {"normals": normals, "digits": digits, "images": images}


def fitted(options, data, prior_functions, **changes):
    """A model, seconds to fit, seconds to predict, and its mean log loss."""
    settings = {
        "reg": options.reg,
        "method": options.method,
        "n_draws": options.draws,
        "prior_functions": prior_functions,
        "storage": options.storage,
        "progress": options.progress,
    }
    x, labels, test, truth = data
    start = time.perf_counter()
    model = NTKClassifier(MLP(), **{**settings, **changes}).fit(x, labels)
    seconds = time.perf_counter() - start
    predicted, loss, _ = scored(model, test, truth)
    return model, seconds, predicted, loss


def scored(model, test, truth):
    """Seconds to predict, mean log loss, and accuracy."""
    start = time.perf_counter()
    proba = model.predict_proba(test)
    seconds = time.perf_counter() - start
    places = np.searchsorted(model.classes_, truth)
    likelihood = np.maximum(proba[np.arange(len(test)), places], 1e-9)
    return seconds, -float(np.mean(np.log(likelihood))), np.mean(proba.argmax(axis=1) == places)


def peak():
    """Bytes."""
    memory = psutil.Process().memory_info()
    if hasattr(memory, "peak_wset"):  # Windows
        return memory.peak_wset
    import resource

    unit = 1 if sys.platform == "darwin" else 2**10
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@contextmanager
def most_taken():
    """Bytes above those at the beginning, over and over; those of files do not count on Linux."""

    def bytes_now():
        memory = psutil.Process().memory_info()
        return memory.rss - getattr(memory, "shared", 0)

    before, ended = bytes_now(), threading.Event()
    taken = [0]

    def look():
        while not ended.wait(0.01):
            taken.append(bytes_now() - before)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield taken
    finally:
        ended.set()
        thread.join()


def one_size(options):
    """Seconds of the parts, and memory."""
    data = DATA[options.data](options.points, options.classes, options.test)
    small = tuple(part[:200] for part in data)
    kind = options.prior_functions
    fitted(options, small, "exact" if options.method == "gaussian" else kind)  # the libraries' own
    before = peak()
    model, seconds, predicted, loss = fitted(options, data, kind)
    gap = float(np.max(model.predictor_.gap))
    classes = len(model.classes_)
    prior = "networks" if isinstance(model.predictor_, networks.NetworkDraws) else "exact"
    expected = estimate_memory(
        options.points, classes, options.draws, options.method, "initialization", prior,
        options.storage is None, n_features=data[0].shape[1],
    )  # fmt: skip
    print(
        f"{options.method}, prior functions {prior}, {options.data}, n={options.points}, "
        f"C={classes}, {options.draws} draws, reg={model.reg_:.3g}: "
        f"peak {(peak() - before) / 2**30:.2f} GiB, predicted {expected / 2**30:.2f} GiB; "
        f"fit {seconds:.0f} s, prediction of {options.test} {predicted:.1f} s; log loss "
        f"{loss:.4f}, gap {gap:.0e} nats"
    )


def against(options):
    """Both kinds of prior function in one run."""
    data = DATA[options.data](options.points, options.classes, options.test)
    for kind in ("networks", "exact"):  # programs
        fitted(options, tuple(part[:200] for part in data), kind)
    found = {kind: fitted(options, data, kind) for kind in ("networks", "exact")}
    (_, ours, predict, loss), (_, theirs, predict_exact, loss_exact) = found.values()
    print(
        f"{options.points} points, {options.draws} draws, reg={options.reg}: networks are "
        f"{theirs / ours:.1f} times faster than a factor of the kernel ({ours:.0f} s, {theirs:.0f} "
        f"s), {predict_exact / predict:.1f} times in predicting {options.test} ({predict:.1f} s, "
        f"{predict_exact:.1f} s); log loss {loss:.4f} and {loss_exact:.4f}"
    )


def finite(options):
    """Networks trained in mini-batches on the same data, which is read from a file."""
    x, labels, test, truth = DATA[options.data](options.points, options.classes, options.test)
    steps = options.epochs * (options.points // options.batch_size)
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/x.npy", x)
        x = np.load(f"{folder}/x.npy", mmap_mode="r")
        model = EnsembleClassifier(
            MLP(width=options.width_of_networks),
            n_members=options.members,
            reg=options.reg,
            optimizer=optax.adam(optax.cosine_decay_schedule(0.01, steps)),
            batch_size=options.batch_size,
            max_iter=options.epochs,
            progress=options.progress,
        )
        few = options.batch_size
        clone(model).fit(x[:few], labels[:few])  # the libraries' own
        start = time.perf_counter()
        with most_taken() as taken:
            model.fit(x, labels)
        seconds = time.perf_counter() - start
    predicted, loss, accuracy = scored(model, test, truth)
    print(
        f"{options.members} networks of width {options.width_of_networks}, {options.data}, "
        f"n={options.points}, reg={options.reg:.3g}, {options.epochs} passes in batches of "
        f"{options.batch_size}: fit {seconds:.0f} s, at its peak {max(taken) / x.nbytes:.1f} times "
        f"the memory that the file has, {x.nbytes / 2**20:.0f} MiB; prediction of {options.test} "
        f"{predicted:.1f} s; log loss {loss:.4f}, accuracy {accuracy:.4f}"
    )


def scaling(options):
    """Seconds at several sizes, and the exponent."""
    sizes, seconds = [options.points // 4, options.points // 2, options.points], []
    fitted(options, DATA[options.data](200, options.classes, options.test), "networks")
    for n in sizes:
        _, taken, predicted, loss = fitted(
            options, DATA[options.data](n, options.classes, options.test), "networks"
        )
        seconds.append(taken)
        print(f"n={n}: fit {taken:.1f} s, prediction {predicted:.1f} s, log loss {loss:.4f}")
    exponent = np.polyfit(np.log(sizes), np.log(seconds), 1)[0]
    print(f"seconds grow with the points to the power {exponent:.2f}")


def choosing(options):
    """The mode's log loss along a grid, and at the reg that was chosen."""
    data = DATA[options.data](options.points, options.classes, options.test)
    few = (data[0][:600], data[1][:600], *data[2:])
    for name, points, kind in (("600 points", few, "exact"), ("all points", data, "networks")):
        model, taken, *_ = fitted(options, points, kind, reg="cv", uncertainty="none")
        loss = fitted(options, data, "networks", reg=model.reg_, uncertainty="none")[3]
        print(f"chosen with {name}: reg={model.reg_:.3g}, log loss {loss:.4f} ({taken:.0f} s)")
    losses = {
        reg: fitted(options, data, "networks", reg=reg, uncertainty="none")[3]
        for reg in np.logspace(-3, 0, 7)
    }
    for reg, loss in losses.items():
        print(f"reg={reg:.3g}: log loss {loss:.4f}")
    print(f"the best of the grid: {min(losses.values()):.4f}")


def width(options):
    """Means and spread of draws with prior functions of networks, against those of a factor."""
    data = DATA[options.data](options.points, options.classes, options.test)
    exact, *_, loss = fitted(options, data, "exact")
    reference = exact.predict_distribution(data[2])
    noise = reference.std / np.sqrt(options.draws)
    print(f"a factor of the kernel: log loss {loss:.4f}, mean std {reference.std.mean():.4f}")
    for units in (64, 128, 256, 512, 1024, 2048):
        networks.PRIOR_WIDTH = units
        model = NTKClassifier(
            MLP(width=units), reg=options.reg, n_draws=options.draws, prior_functions="networks"
        ).fit(*data[:2])
        found = model.predict_distribution(data[2])
        off = (found.mean - reference.mean) / (np.sqrt(2) * noise)
        places = np.searchsorted(model.classes_, data[3])
        loss = -np.mean(np.log(found.proba()[np.arange(options.test), places]))
        print(
            f"width {units}: log loss {loss:.4f}, means differ by {np.sqrt(np.mean(off**2)):.2f} "
            f"standard errors, spread by a factor of {np.mean(found.std / reference.std):.3f}, "
            f"epistemic {found.epistemic.mean():.4f} (factor: {reference.epistemic.mean():.4f})"
        )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", choices=DATA, default="normals")
    parser.add_argument("--points", type=int)
    parser.add_argument("--classes", type=int, default=10, help="of normals")
    parser.add_argument("--test", type=int, default=500, help="points to predict")
    parser.add_argument("--draws", type=int, default=128)
    parser.add_argument("--reg", type=float, default=1.0)
    parser.add_argument("--method", choices=("exact", "gaussian"), default="exact")
    parser.add_argument("--prior-functions", choices=("auto", "exact", "networks"), default="auto")
    parser.add_argument("--storage", help="directory of a file for the kernel")
    parser.add_argument("--progress", action="store_true")
    parser.add_argument("--members", type=int, default=4, help="networks, with --finite")
    parser.add_argument("--width-of-networks", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=256)
    tasks = {
        "finite": 10_000,
        "against": 4000,
        "scaling": 10_000,
        "choosing": 10_000,
        "width": 1000,
    }
    for name in tasks:
        parser.add_argument(f"--{name}", action="store_true")
    options = parser.parse_args()
    asked = [name for name in tasks if getattr(options, name)]
    if options.points is None:
        options.points = tasks[asked[0]] if asked else 2000
    for name in asked:
        globals()[name](options)
    if not asked:
        one_size(options)


if __name__ == "__main__":
    main()
