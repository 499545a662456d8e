"""Laplace approximation of a network: run by against_rivals.py, in laplace-torch's environment.

Reads a table and its folds (npz), writes class probabilities of the held-out points and seconds.
A network of two hidden layers of 64, Adam; Kronecker-factored Laplace over all weights, its prior
precision by marginal likelihood, the linearised predictive by the probit approximation. The weight
decay of the training is chosen by the log loss of three inner folds, in the first outer fold, and
kept for the others.
"""

import argparse
import time

import numpy as np
import torch
from laplace import Laplace
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler
from torch.utils.data import DataLoader, TensorDataset

DECAYS = (1e-4, 1e-3, 1e-2)
STEPS = 300


def probabilities(x, y, unseen, n_classes, decay):
    torch.manual_seed(0)
    x, unseen = (torch.tensor(a, dtype=torch.float32) for a in (x, unseen))
    y = torch.tensor(y)
    layers = [torch.nn.Linear(x.shape[1], 64), torch.nn.ReLU(), torch.nn.Linear(64, 64)]
    network = torch.nn.Sequential(*layers, torch.nn.ReLU(), torch.nn.Linear(64, n_classes))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(x), y).backward()
        optimizer.step()
        schedule.step()
    posterior = Laplace(network, "classification", subset_of_weights="all")
    posterior.fit(DataLoader(TensorDataset(x, y), batch_size=len(x)))
    posterior.optimize_prior_precision(method="marglik")
    with torch.no_grad():
        proba = posterior(unseen, link_approx="probit").double().numpy()
    return proba / proba.sum(axis=1, keepdims=True)


def chosen(x, y, n_classes):
    inner = StratifiedKFold(3, shuffle=True, random_state=1)
    losses = []
    for decay in DECAYS:
        loss = 0.0
        for train, test in inner.split(x, y):
            proba = probabilities(x[train], y[train], x[test], n_classes, decay)
            loss += log_loss(y[test], proba, labels=range(n_classes))
        losses.append(loss)
    return DECAYS[int(np.argmin(losses))]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("problem")
    parser.add_argument("result")
    options = parser.parse_args()
    problem = np.load(options.problem)
    x, y, fold = (problem[name] for name in ("X", "y", "fold"))
    n_classes = len(np.unique(y))
    proba, seconds, decay = np.zeros((len(y), n_classes)), [], None
    for k in np.unique(fold):
        train = fold != k
        scaler = StandardScaler().fit(x[train])
        known, unseen = scaler.transform(x[train]), scaler.transform(x[~train])
        start = time.process_time()
        decay = decay or chosen(known, y[train], n_classes)
        proba[~train] = probabilities(known, y[train], unseen, n_classes, decay)
        seconds.append(time.process_time() - start)
    np.savez(options.result, proba=proba, seconds=seconds[0])


if __name__ == "__main__":
    main()
