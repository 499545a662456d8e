"""How far exact draws are from the Gaussian predictor, as a function of the regularisation."""

import numpy as np
from sklearn import datasets
from sklearn.preprocessing import StandardScaler

from ntk_uq import MLP, NTKClassifier
from ntk_uq.analytic import discrepancy


def main():
    print("data     reg     sd ratio: median, 5%, 95%   skewness   mean shift   probability")
    for name, n in (("iris", 75), ("digits", 150)):
        x, labels = getattr(datasets, f"load_{name}")(return_X_y=True)
        order = np.random.default_rng(0).permutation(len(x))
        x, labels = StandardScaler().fit(x[order[:n]]).transform(x[order]), labels[order]
        for reg in (0.001, 0.1, 1, 10, 100):
            gaussian, draws = (
                NTKClassifier(MLP(), reg=reg, method=method)
                .fit(x[:n], labels[:n])
                .predict_distribution(x[n : n + 60])
                for method in ("gaussian", "exact")
            )
            found = discrepancy(gaussian, draws)
            low, middle, high = np.quantile(found.sd_ratio, [0.05, 0.5, 0.95])
            skewness, shift = (
                np.sqrt(np.mean(value**2)) for value in (found.skewness, found.mean_shift)
            )
            distance = np.mean(np.abs(gaussian.proba() - draws.proba()).sum(axis=1)) / 2
            print(
                f"{name:8} {reg:<7} {middle:16.2f} {low:5.2f} {high:5.2f}"
                f"{skewness:11.2f} {shift:12.2f} {distance:13.3f}"
            )


if __name__ == "__main__":
    main()
