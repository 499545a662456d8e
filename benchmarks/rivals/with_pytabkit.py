"""RealMLP, TabM and xRFM: run by against_rivals.py, in pytabkit's environment.

RealMLP by its tuned defaults, bagged over five folds, TabM with piecewise linear embeddings, its
makers' best, xRFM by the random search of its makers, thirty settings. TabM and xRFM hold out one
fifth of the training points, as their defaults do: in five folds each would take minutes a table.
What is held out stops and chooses by its log loss; no label smoothing, as RealMLP's makers advise
for that loss.
"""

import contextlib
import logging
import os
import warnings

import torch
from _held_out import run
from pytabkit import RealMLP_TD_Classifier, TabM_D_Classifier, XRFM_HPO_Classifier

SETTINGS = {
    "device": "cpu", "random_state": 0, "n_threads": 1, "val_metric_name": "cross_entropy",
}  # fmt: skip


def rule(make):
    def probabilities(x, y, unseen):
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            with contextlib.redirect_stderr(nowhere):
                return make().fit(x, y).predict_proba(unseen)

    return probabilities


RULES = {
    "RealMLP": rule(lambda: RealMLP_TD_Classifier(n_cv=5, use_ls=False, **SETTINGS)),
    "TabM": rule(lambda: TabM_D_Classifier(num_emb_type="pwl", **SETTINGS)),
    "xRFM": rule(lambda: XRFM_HPO_Classifier(n_hyperopt_steps=30, **SETTINGS)),
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    run(__doc__, RULES)
