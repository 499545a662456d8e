"""Functional Laplace approximation of a given network: run in laplace-torch's environment.

Reads weights of the network of benchmarks/linearized.py and data, fits laplace-torch's functional
Laplace with the kernel of all outputs, and prints seconds of fit and prediction, and the log loss
of the probit approximation.
"""

import json
import sys
import time

import numpy as np
import torch
from laplace import FunctionalLaplace
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class ChannelsLast(nn.Module):
    def forward(self, x):
        return x.permute(0, 2, 3, 1)


def network(arrays):
    layers = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2),
        ChannelsLast(), nn.Flatten(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10),
    )  # fmt: skip
    names = {0: "conv1", 3: "conv2", 8: "hidden", 10: "readout"}
    for place, name in names.items():
        kernel = arrays[f"{name}.kernel"]
        order = (3, 2, 0, 1) if kernel.ndim == 4 else (1, 0)
        layers[place].weight.data = torch.tensor(kernel.transpose(order).copy())
        layers[place].bias.data = torch.tensor(arrays[f"{name}.bias"])
    return layers.eval()


def main():
    arrays = np.load(sys.argv[1])
    X, X_test = (
        torch.tensor(arrays[k], dtype=torch.float32).permute(0, 3, 1, 2) for k in ("X", "X_test")
    )
    y, y_test = torch.tensor(arrays["y"]), arrays["y_test"]
    model = network(arrays)
    start = time.perf_counter()
    posterior = FunctionalLaplace(
        model, "classification", n_subset=len(X), prior_precision=float(arrays["decay"])
    )
    posterior.fit(DataLoader(TensorDataset(X, y), batch_size=100))
    fitted = time.perf_counter()
    parts = [posterior(x, link_approx="probit").detach() for x in X_test.split(100)]
    proba = torch.cat(parts).double().numpy()
    end = time.perf_counter()
    proba /= proba.sum(axis=1, keepdims=True)
    loss = -np.log(proba[np.arange(len(y_test)), y_test]).mean()
    print(json.dumps({"fit": fitted - start, "seconds": end - start, "log_loss": loss}))


if __name__ == "__main__":
    main()
