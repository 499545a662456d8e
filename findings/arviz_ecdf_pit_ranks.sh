#!/usr/bin/env bash
# arviz-plots 1.3.2 and arviz-stats 1.3.3: plot_ecdf_pit takes ranks, and scales them by the largest
# that it sees, so that it passes a sampler whose draws are all too large.
#
# Simulation-based calibration gives ranks among L draws, 0 to L. plot_ecdf_pit takes them without a
# word where any value is above 1, as (rank + 0.5) / (largest rank seen + 1): it cannot know L, and
# does not ask. Of a biased sampler, with truths that are always among the smaller half of the
# draws, ranks 0 to 49 of 99, it draws a uniform curve and prints a large p-value. The same ranks
# divided by L + 1, as probability integral transforms, it refuses, as it must. One would expect an
# argument for L, or an error that asks for values in [0, 1].
#
# Seen: ranks -> p-value above 0.05; the same as transforms -> below 1e-6.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check \
  arviz-base==1.3.1 arviz-stats==1.3.3 arviz-plots==1.3.2 matplotlib
"$folder/env/bin/python" - <<'PYTHON'
import re

import arviz_base
import arviz_plots
import arviz_stats
import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.text import Text

ranks = np.random.default_rng(0).permutation(np.repeat(np.arange(50), 8))[None]  # of 99 draws


def p_value(values):
    """As the plot says it."""
    tree = arviz_base.from_dict({"prior_sbc": {"f": values}})
    arviz_plots.plot_ecdf_pit(tree, backend="matplotlib")
    (text,) = (
        found.get_text()
        for found in plt.gcf().findobj(Text)
        if found.get_text().replace("$", "").strip().startswith("p")
    )
    plt.close("all")
    return text


print("arviz-plots", arviz_plots.__version__, "arviz-stats", arviz_stats.__version__)
found = {"ranks": p_value(ranks), "transforms": p_value((ranks + 0.5) / 100)}
print(found)
numbers = {name: float(re.search(r"p\s*=\s*([0-9.]+)", text)[1]) for name, text in found.items()}
assert numbers["ranks"] > 0.05, "changed: ranks"
assert numbers["transforms"] < 0.01, "changed: transforms"
PYTHON
