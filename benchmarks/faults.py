"""Faults, injected at length: whatever is killed, damaged or without room, nothing is lost.

python benchmarks/faults.py                   # all, 200 kills and 10,000 files: ten minutes or so
python benchmarks/faults.py --quick           # a few of each
python benchmarks/faults.py --only damaged    # or killed, full, closed, clocks, two
python benchmarks/faults.py --only large --points 10000 --kills 6    # not among all: ten minutes

A line for each kind says how often, and what came of it. The exit status is 1 if anything was lost,
or changed without a word. Results are compared to the last bit.
"""

import argparse
import importlib.util
import multiprocessing
import os
import random
import re
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from contextlib import suppress
from functools import cache, partial
from pathlib import Path

import numpy as np
from size import digits

import ntk_uq as nuq
from ntk_uq._common import tiles
from ntk_uq._common.checkpoint import Checkpoint
from ntk_uq.analytic import network_draws
from ntk_uq.ensemble import trainer
from ntk_uq.persistence.archive import SUM_LENGTH, digest_of

GOLDEN = Path(__file__).parents[1] / "tests" / "golden"
RNG = np.random.default_rng(0)
X = RNG.standard_normal((40, 3))
LABELS = np.where(X[:, 0] + 0.5 * RNG.standard_normal(40) > 0, "yes", "no")
# Kills of one run before it may come to its end, and seconds after which it hangs.
KILLS_IN_A_ROW, TOO_LONG = 4, 300
# What a child says by its exit status.
DONE, REFUSED, FAILED = 0, 3, 4


# What is run: a job works in a folder, and gives an array that is always the same.


def members(folder):
    """Finite networks in training, which are saved at every look."""
    trainer._CHECKPOINT_SECONDS = 0.0
    net = nuq.MLP(width=16, depth=1, activation="erf")
    model = nuq.EnsembleClassifier(net, n_members=24, checkpoint=folder / "run")
    return model.fit(X, LABELS).predict_proba(X)


def draws(folder):
    """Draws as for many points, a few at once, by a kernel in tiles in a file."""
    network_draws._draws_at_once_of_tiles = lambda *_: 8
    tiles.TILE_ROWS = 16
    model = nuq.NTKClassifier(
        nuq.MLP(depth=1), reg=0.1, n_draws=48, prior_functions="networks",
        checkpoint=folder / "run", storage=folder,
    )  # fmt: skip
    return model.fit(X, LABELS).predict_proba(X)


def saving(folder):
    """Two models, in turns in the place of one another."""
    pair = [nuq.load(GOLDEN / f"{name}.ntk") for name in ("ntk-exact", "ntk-none")]
    for turn in range(60):
        nuq.save(pair[turn % 2], folder / "model.ntk")
    return said_by(nuq.load(folder / "model.ntk"))


def shell(folder):
    """The command that fits networks to a table, and writes a model."""
    from ntk_uq.cli import main

    trainer._CHECKPOINT_SECONDS = 0.0
    rows = ["a,b,c,y", *(",".join(map(str, [*x, y])) for x, y in zip(X, LABELS, strict=True))]
    (folder / "table.csv").write_text("\n".join(rows))
    status = main(
        [
            *["fit", str(folder / "table.csv"), "--target", "y", "--producer", "ensemble"],
            *["--reg", "1", "--members", "16", "--checkpoint", str(folder / "run")],
            *["-o", str(folder / "model.ntk")],
        ]
    )
    if status:
        raise OSError(f"exit status {status}")
    return said_by(nuq.load(folder / "model.ntk").pipeline[-1])


JOBS = {job.__name__: job for job in (members, draws, saving, shell)}


def large(folder):
    """Draws of the posterior for many points, which lie beside the folder."""
    with np.load(folder.parent / "large.npz") as data:
        model = nuq.NTKClassifier(
            nuq.MLP(), reg=1.0, n_draws=64, uncertainty="posterior", checkpoint=folder / "run",
            progress=True,
        )  # fmt: skip
        return model.fit(data["x"], data["labels"]).predict_proba(data["test"])


def said_by(model):
    """What a model predicts at a few points."""
    return model.predict_distribution(X[:3, : model.n_features_in_]).mean


# Processes.


def child(job, folder, result, started, ready=None):
    """Run a job, after what is `ready`, and keep what it gives."""
    warnings.simplefilter("ignore")
    sys.stdout = sys.stderr = open(folder.with_suffix(".log"), "a", buffering=1)
    status = FAILED
    try:
        if ready is not None:
            ready[0](*ready[1:])
        started.set()
        np.save(result, (JOBS | {"large": large})[job](folder))
        status = DONE
    except BaseException as error:
        status = REFUSED if isinstance(error, OSError | ValueError) else FAILED
        with suppress(OSError):  # there may be no room for it either
            traceback.print_exc()
    finally:
        os._exit(status)


class Run:
    """A job in a process of its own."""

    methods = multiprocessing.get_all_start_methods()
    processes = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    numbers = iter(range(10**9))

    def __init__(self, job, folder, ready=None):
        folder.mkdir(exist_ok=True)
        self.result = folder.parent / f"result-{next(self.numbers)}.npy"
        started = self.processes.Event()
        arguments = job, folder, self.result, started, ready
        self.process = self.processes.Process(target=child, args=arguments)
        self.process.start()
        started.wait(TOO_LONG)

    def end(self, seconds=TOO_LONG):
        """Exit status, and what came out."""
        self.process.join(seconds)
        if self.process.is_alive():
            self.process.kill()
        status = self.process.exitcode
        return status, np.load(self.result) if status == DONE else None

    def killed_after(self, seconds):
        """Whether it was killed before its end."""
        self.process.join(seconds)
        self.process.kill()
        self.process.join()
        return self.process.exitcode != DONE


@cache
def whole(job, folder):
    """What comes of a job that nothing disturbs, and its seconds once all is compiled."""
    Run(job, folder / f"{job}-first").end()
    start = time.perf_counter()
    status, result = Run(job, folder / f"{job}-whole").end()
    if status != DONE:
        sys.exit((folder / f"{job}-whole.log").read_text())
    return result, time.perf_counter() - start


def finished(folder):
    """Results that a run has kept."""
    return {file.name for file in (folder / "run").glob("*.npz") if "training" not in file.name}


def outcome(job, folder, ready=None):
    """Run once more, to the end: whether the result is that of a run that nothing disturbed."""
    status, result = Run(job, folder, ready).end()
    if status != DONE:
        return "failed"
    return "the same" if np.array_equal(result, whole(job, folder.parent)[0]) else "CHANGED"


def read_as_it_is(folder):
    """Whether a reader finds whole files only, at any moment."""
    model = folder / "model.ntk"
    try:
        if model.exists():
            nuq.load(model)
        for file in (folder / "run").glob("*.npz"):
            with np.load(file) as arrays:
                dict(arrays)
    except Exception:
        traceback.print_exc()
        return False
    return True


# Kinds of fault. Each gives what happened, as counts; words in capitals are losses.


def killed(number, folder):
    """SIGKILL at random moments of each job, four times in a row, and then to the end."""
    for name in JOBS:
        counts, seconds = Counter(), whole(name, folder)[1]
        share, series = number // len(JOBS), 0
        while counts["kills"] < share:
            place, series = folder / f"killed-{name}-{series}", series + 1
            for _ in range(min(KILLS_IN_A_ROW, share - counts["kills"])):
                before = finished(place)
                hit = Run(name, place).killed_after(random.uniform(0, 0.6 * seconds))
                counts["kills" if hit else "too late"] += 1
                if not before <= finished(place):
                    counts["LOST"] += 1
                if not read_as_it_is(place):
                    counts["HALF-WRITTEN"] += 1
            counts[outcome(name, place)] += 1
            if name != "saving" and list(place.rglob("*.tmp")):
                counts["LEFT BEHIND"] += 1
            progress("killed", name, counts["kills"], share)
        yield f"killed, {name}", counts


def killed_at_size(number, folder, points):
    """SIGKILL of one long run again and again, and then to the end: what is repeated, and lost."""
    x, labels, test, _ = digits(points, 10, 500)
    np.savez(folder / "large.npz", x=x, labels=labels, test=test)

    def run(name, kill_after=None):
        start, this = time.perf_counter(), Run("large", folder / name)
        if kill_after is not None:
            this.killed_after(kill_after)
        return *this.end(None), time.perf_counter() - start

    status, expected, whole = run("undisturbed")
    if status != DONE:
        sys.exit((folder / "undisturbed.log").read_text())
    print(f"{points} points, 64 draws, undisturbed: {whole:.0f} s", flush=True)
    counts, place, spent, log = Counter(), folder / "killed", 0.0, folder / "killed.log"
    for k in range(number + 1):
        before, said = finished(place), log.stat().st_size if log.exists() else 0
        moment = None if k == number else random.uniform(0, 0.5) * whole
        status, found, seconds = run("killed", moment)
        spent += seconds
        if status in (DONE, REFUSED, FAILED):
            break
        kept = finished(place)
        counts["kills"] += 1
        counts["LOST"] += not before <= kept
        counts["HALF-WRITTEN"] += not read_as_it_is(place)
        at = re.findall(
            r"(kernel|deflation|mode|infinite ensemble):", log.read_bytes()[said:].decode()
        )
        print(
            f"killed after {seconds:.0f} s, in: {(at or ['beginning'])[-1]}; files kept before "
            f"{len(before)}, now {len(kept)}",
            flush=True,
        )
    same = status == DONE and np.array_equal(found, expected)
    counts["the same" if same else "CHANGED" if status == DONE else "failed"] += 1
    counts["LEFT BEHIND"] += len(list(place.rglob("*.tmp")))
    print(
        f"then to the end in {seconds:.0f} s; in all {spent:.0f} s, {spent / whole:.2f} times as "
        f"long as undisturbed: {(spent - whole) / max(1, counts['kills']):.0f} s a kill"
    )
    yield "killed, large", +counts


def limited(size):
    """Have the system write files of so many bytes and no more."""
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # an error in its place
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def full(number, folder):
    """No room after so many bytes, at random; then room again."""
    if not hasattr(signal, "SIGXFSZ"):
        yield "disk full", "skipped: this system does not limit the size of files"
        return
    for name in JOBS:
        counts, share = Counter(), max(1, number // 40)
        whole(name, folder)
        files = [f for f in (folder / f"{name}-whole").rglob("*") if f.suffix in (".npz", ".ntk")]
        largest = max(file.stat().st_size for file in files)
        for k in range(share):
            place = folder / f"full-{name}-{k}"
            status, _ = Run(name, place, (limited, random.randrange(64, largest))).end()
            counts["runs"] += 1
            counts[{DONE: "done", REFUSED: "refused by an OSError"}.get(status, "FAILED")] += 1
            if not read_as_it_is(place):
                counts["HALF-WRITTEN"] += 1
            if list(place.rglob("*.tmp")):
                counts["LEFT BEHIND"] += 1
            counts[f"then {outcome(name, place)}"] += 1
            progress("full", name, k + 1, share)
        yield f"disk full, {name}", counts


def nobody():
    """Lose the rights of root, whom no permission binds; what is imported late takes them too."""
    said_by(nuq.load(GOLDEN / "ntk-exact.ntk"))
    if os.geteuid() == 0:
        os.seteuid(65534)


def closed(number, folder):
    """A folder that may be read only."""
    if not hasattr(os, "geteuid"):
        yield "read-only folder", "skipped: permissions are others on this system"
        return
    for name in JOBS:
        counts, place = Counter(), folder / f"closed-{name}"
        whole(name, folder)
        place.mkdir()
        (place / "run").mkdir()
        place.with_suffix(".log").touch()
        for each in (place / "run", place):
            each.chmod(0o555)
        status, _ = Run(name, place, (nobody,)).end()
        counts["runs"] += 1
        counts["refused by an OSError" if status == REFUSED else "FAILED"] += 1
        if list((place / "run").iterdir()) or (place / "model.ntk").exists():
            counts["WRITTEN"] += 1
        for each in (place, place / "run"):
            each.chmod(0o755)
        counts[f"then {outcome(name, place)}"] += 1
        yield f"read-only folder, {name}", counts


def jumping():
    """Clocks that go anywhere, to before the epoch of archives and back."""
    now, anywhere = time.time(), random.Random(0)
    time.time = lambda: anywhere.choice([0.0, now - 1e9, now, now + 1e9, 2**32 + 1e6])
    real = time.localtime
    time.localtime = lambda seconds=None: real(time.time() if seconds is None else seconds)
    trainer.time.monotonic = lambda: anywhere.uniform(-1e9, 1e9)


def clocks(number, folder):
    """time.time, time.localtime and time.monotonic jump at every call, by decades."""
    for name in JOBS:
        place = folder / f"clocks-{name}"
        whole(name, folder)
        yield f"clock jumps, {name}", Counter({"runs": 1, outcome(name, place, (jumping,)): 1})


def two(number, folder):
    """Two processes in one checkpoint at once."""
    for name in ("members", "draws"):
        counts, expected = Counter(), whole(name, folder)[0]
        for k in range(max(1, number // 20)):
            place = folder / f"two-{name}-{k}"
            pair = [Run(name, place), Run(name, place)]
            for run in pair:
                status, result = run.end()
                same = status == DONE and np.array_equal(result, expected)
                counts["the same" if same else "FAILED" if status != DONE else "CHANGED"] += 1
            counts["pairs"] += 1
            progress("two", name, k + 1, max(1, number // 20))
        yield f"two processes at once, {name}", counts


def damage(content, generator):
    """A file that was cut short, or has one bit to eight of another value."""
    if generator.random() < 0.3:
        return content[: generator.randrange(len(content))]
    changed = bytearray(content)
    for _ in range(generator.choice([1, 1, 1, 2, 8])):
        changed[generator.randrange(len(changed))] ^= 1 << generator.randrange(8)
    return bytes(changed)


def sealed(content, path):
    """The same, with the sum that belongs to it: what a forger would do."""
    path.write_bytes(content)
    with open(path, "rb") as file:
        return content[:-SUM_LENGTH] + digest_of(file, max(0, len(content) - SUM_LENGTH))


def damaged(number, folder, seed=0):
    """Model files and files of checkpoints."""
    spec = importlib.util.spec_from_file_location("make", GOLDEN / "make.py")
    golden = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(golden)
    contents = {name: (GOLDEN / f"{name}.ntk").read_bytes() for name in golden.MODELS}
    generator, path = random.Random(seed), folder / "model.ntk"

    def read(name, content):
        path.write_bytes(content)
        try:
            model = nuq.load(path)
        except ValueError:
            return "refused"
        except Exception:
            traceback.print_exc()
            return "ANOTHER ERROR"
        said = golden.predicted(model, golden.X_TEST)
        known = golden.predicted(nuq.load(GOLDEN / f"{name}.ntk"), golden.X_TEST)
        same = all(np.array_equal(said[key], known[key]) for key in known)
        return "loaded equal" if same else "CHANGED"

    counts, forged = Counter(), Counter()
    for k in range(number):
        name = generator.choice(list(contents))
        content = damage(contents[name], generator)
        counts["files"] += 1
        counts[read(name, content) if content != contents[name] else "loaded equal"] += 1
        if k % 5 == 0:
            path.write_bytes(sealed(content, path))
            forged["files"] += 1
            try:
                nuq.load(path)
                forged["loaded"] += 1
            except ValueError:
                forged["refused"] += 1
            except Exception:
                traceback.print_exc()
                forged["ANOTHER ERROR"] += 1
        progress("damaged", "models", k + 1, number)
    yield "damaged models", counts
    yield "damaged models whose sum was made right", forged
    yield "damaged checkpoints", damaged_checkpoints(number // 5, folder, generator)


def damaged_checkpoints(number, folder, generator):
    """What a run finds that goes on from a damaged file."""
    counts, run = Counter(), {"reg": "1.0", "key": "a"}
    tree = {"a": np.arange(6.0), "b": np.ones((2, 3), np.float32), "c": np.zeros(2, bool)}
    Checkpoint(folder / "run", run).save("x", tree)
    files = {file: file.read_bytes() for file in (folder / "run").iterdir()}
    for _ in range(number):
        file = generator.choice(sorted(files))
        file.write_bytes(damage(files[file], generator))
        counts["files"] += 1
        try:
            found = Checkpoint(folder / "run", run).load("x", tree)
            same = all(np.array_equal(found[name], tree[name]) for name in tree)
            counts["loaded equal" if same else "CHANGED"] += 1
        except ValueError:
            counts["refused"] += 1
        except Exception:
            traceback.print_exc()
            counts["ANOTHER ERROR"] += 1
        file.write_bytes(files[file])
    return counts


KINDS = {kind.__name__: kind for kind in (killed, full, closed, clocks, two, damaged)}


def progress(kind, name, done, total):
    """A line that stays one, at a terminal."""
    if sys.stderr.isatty() and (done % 20 == 0 or total < 100 or done == total):
        end = "\n" if done == total else ""
        print(f"\r{kind}, {name}: {done} of {total} ", end=end, file=sys.stderr, flush=True)


def main():
    """Inject what is asked for, and say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--quick", action="store_true", help="8 kills and 300 files")
    parser.add_argument("--only", nargs="+", choices=[*KINDS, "large"], default=list(KINDS))
    parser.add_argument("--points", type=int, default=10_000, help="of --only large")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    kills, files = (8, 300) if arguments.quick else (arguments.kills, arguments.files)
    kinds = KINDS | {"large": partial(killed_at_size, points=arguments.points)}
    random.seed(arguments.seed)
    warnings.simplefilter("ignore")
    lost = 0
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)  # for one without rights
        # A process that is killed may leave half a program in the cache: not in anybody's.
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder / "programs")
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
        # Of a long run programs take more time than to compile them.
        quickly_compiled = "0" if arguments.only == ["large"] else "1"
        os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", quickly_compiled)
        if Run.processes.get_start_method() == "forkserver":
            loaded = [
                "ntk_uq.estimators",
                "ntk_uq.persistence",
                "ntk_uq.cli",
                "ntk_uq.tables.model",
            ]
            Run.processes.set_forkserver_preload(loaded)
        for kind in arguments.only:
            for title, counts in kinds[kind](files if kind == "damaged" else kills, folder):
                if isinstance(counts, str):
                    print(f"{title}: {counts}", flush=True)
                    continue
                words = ", ".join(f"{count} {word}" for word, count in counts.items())
                print(f"{title}: {words}", flush=True)
                bad = sum(count for word, count in counts.items() if word.isupper())
                bad += counts["failed"] + counts["then failed"] + counts["then CHANGED"]
                lost += bad
                if bad:
                    show_logs(folder)
    print(f"lost or changed: {lost}")
    sys.exit(bool(lost))


def show_logs(folder):
    """What children of the last runs said."""
    for log in sorted(folder.glob("*.log"), key=lambda file: file.stat().st_mtime)[-2:]:
        print(f"{log.name}:\n{log.read_text()[-2000:]}", file=sys.stderr)


if __name__ == "__main__":
    main()
