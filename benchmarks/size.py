"""Peak memory of fitting, against what `estimate_memory` predicts, and seconds for each part."""

import argparse
import resource
import time

import numpy as np

from ntk_uq import MLP, NTKClassifier
from ntk_uq.analytic import estimate_memory


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=2000)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--draws", type=int, default=128)
    parser.add_argument("--method", choices=("exact", "gaussian"), default="exact")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    x = rng.normal(size=(options.points, 20))
    labels = np.argmax(x[:, : options.classes] + rng.normal(size=(options.points, 1)), axis=1)

    small = {"method": options.method, "n_draws": options.draws}
    NTKClassifier(MLP(), **small).fit(x[:100], labels[:100])  # the libraries' own memory
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    model = NTKClassifier(MLP(), **small).fit(x, labels)
    fitted = time.perf_counter()
    model.predict_distribution(x[:1000])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    predicted = estimate_memory(
        options.points, options.classes, options.draws, options.method, "initialization"
    )
    print(
        f"{options.method}, n={options.points}, C={options.classes}, {options.draws} draws: "
        f"peak {(peak - before) / 2**20:.2f} GiB, predicted {predicted / 2**30:.2f} GiB; "
        f"fit {fitted - start:.0f} s, prediction {time.perf_counter() - fitted:.1f} s"
    )


if __name__ == "__main__":
    main()
