#!/usr/bin/env bash
# arviz-stats 1.3.3: loo raises where one observation is equally likely under every draw.
#
# Such an observation leaves the posterior as it is without it: its importance weights are all one, and
# its expected log density is its log likelihood. It occurs wherever a part of the data does not depend
# on the parameters (a control, a fixed offset), or the draws are integrated out for it. The whole
# computation ends in ValueError, of every other observation too.
#
# Seen: 20 observations that depend on the draws -> elpd; the same and a constant one -> ValueError,
# "All tail values are the same".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check \
  arviz-stats[xarray]==1.3.3 arviz-base==1.3.1
"$folder/env/bin/python" - <<'PYTHON'
from importlib.metadata import version

import arviz_base
import arviz_stats
import numpy as np

rng = np.random.default_rng(0)
y, mu = rng.normal(size=20), rng.normal(scale=0.2, size=(4, 500, 1))
log_likelihood = -0.5 * (y - mu) ** 2 - 0.5 * np.log(2 * np.pi)
constant = np.full((4, 500, 1), -1.0)


def outcome(values):
    tree = arviz_base.from_dict({"posterior": {"mu": mu[..., 0]}, "log_likelihood": {"y": values}})
    try:
        return "elpd" if np.isfinite(arviz_stats.loo(tree).elpd) else "not finite"
    except ValueError as error:
        return f"ValueError: {error}"


found = outcome(log_likelihood), outcome(np.concatenate([log_likelihood, constant], axis=-1))
print("arviz-stats", version("arviz-stats"), "varying:", found[0], "one constant:", found[1])
assert found == ("elpd", "ValueError: All tail values are the same"), "changed"
PYTHON
