"""Laplace approximation of a network: run by against_rivals.py, in laplace-torch's environment.

A network of two hidden layers of 64, Adam; Kronecker-factored Laplace over all weights, its prior
precision by marginal likelihood, the linearised predictive by the probit approximation. The weight
decay of the training is chosen by the log loss of three inner folds.
"""

import numpy as np
import torch
from _held_out import run
from laplace import Laplace
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold
from torch.utils.data import DataLoader, TensorDataset

DECAYS = (1e-4, 1e-3, 1e-2)
STEPS = 300


def fitted(x, y, unseen, decay):
    torch.manual_seed(0)
    n_classes = int(y.max()) + 1
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


def chosen(x, y):
    inner = StratifiedKFold(3, shuffle=True, random_state=1)
    losses = []
    for decay in DECAYS:
        loss = 0.0
        for train, test in inner.split(x, y):
            proba = fitted(x[train], y[train], x[test], decay)
            loss += log_loss(y[test], proba, labels=np.unique(y))
        losses.append(loss)
    return DECAYS[int(np.argmin(losses))]


def probabilities(x, y, unseen):
    return fitted(x, y, unseen, chosen(x, y))


if __name__ == "__main__":
    run(__doc__, {"laplace-torch": probabilities})
