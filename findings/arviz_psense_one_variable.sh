#!/usr/bin/env bash
# arviz-plots 1.3.2: the plots of prior sensitivity raise where the posterior has one variable.
#
# plot_psense_dist and plot_psense_quantities draw a posterior under powers of prior and likelihood. A
# tree with a posterior, log_likelihood and log_prior is all that they need, and psense_summary of
# arviz-stats takes it. With two variables in the posterior they draw; with one, however many entries
# it has, they end in TypeError, as would a Gaussian process whose only variable is its function.
#
# Seen: two variables -> drawn; one, a vector of three -> TypeError, "invalid indexer".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check \
  arviz-plots[matplotlib]==1.3.2 arviz-stats[xarray]==1.3.3 arviz-base==1.3.1
MPLBACKEND=agg "$folder/env/bin/python" - <<'PYTHON'
import warnings
from importlib.metadata import version

import arviz_base
import arviz_plots
import arviz_stats
import numpy as np

warnings.simplefilter("ignore")
rng = np.random.default_rng(0)
mu, tau = rng.normal(scale=0.3, size=(4, 500, 3)), rng.normal(size=(4, 500))
y = rng.normal(size=3)


def tree(**more):
    return arviz_base.from_dict(
        {
            "posterior": {"mu": mu, **more},
            "log_likelihood": {"y": -0.5 * (y - mu) ** 2},
            "log_prior": {"mu": -0.5 * mu**2},
        }
    )


def outcome(plot, data):
    try:
        plot(data, backend="matplotlib")
    except TypeError as error:
        return f"TypeError: {str(error)[:15]}"
    return "drawn"


one, two = tree(), tree(tau=tau)
assert len(arviz_stats.psense_summary(one)) == 3
print("arviz-plots", version("arviz-plots"))
for plot in (arviz_plots.plot_psense_dist, arviz_plots.plot_psense_quantities):
    found = outcome(plot, two), outcome(plot, one)
    print(plot.__name__, "two variables:", found[0], "one:", found[1])
    assert found == ("drawn", "TypeError: invalid indexer"), "changed"
PYTHON
