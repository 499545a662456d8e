"""CatBoost: run by against_rivals.py, in an environment of its own.

Its defaults, with the number of trees by early stopping on a fifth of the training points, as its
makers advise, then grown on all of them.
"""

import numpy as np
from _held_out import run
from catboost import CatBoostClassifier
from sklearn.model_selection import train_test_split

PATIENCE, MOST = 50, 2000
SETTINGS = {"verbose": 0, "random_seed": 0, "thread_count": 1, "allow_writing_files": False}


def chosen(x, y):
    rare = np.min(np.unique(y, return_counts=True)[1]) < 2
    known, held_out, y_known, y_held_out = train_test_split(
        x, y, test_size=0.2, stratify=None if rare else y, random_state=0
    )
    seen = np.isin(y_held_out, y_known)
    model = CatBoostClassifier(iterations=MOST, early_stopping_rounds=PATIENCE, **SETTINGS)
    model.fit(known, y_known, eval_set=(held_out[seen], y_held_out[seen]))
    return {"iterations": max(1, model.tree_count_), "learning_rate": model.learning_rate_}


def probabilities(x, y, unseen):
    return CatBoostClassifier(**chosen(x, y), **SETTINGS).fit(x, y).predict_proba(unseen)


if __name__ == "__main__":
    run(__doc__, {"CatBoost": probabilities})
