"""What the experiments behind the claims share: where their tables are kept, and how they are run.

An experiment measures tables, which are kept beside the page, and draws a figure from tables alone,
so that the page shows the figure without measuring again.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

Tables = dict[str, pd.DataFrame]

RESULTS = Path(__file__).parents[2] / "docs" / "claims" / "results"


def stored(experiment: str, results: Path = RESULTS) -> Tables:
    """The tables of an experiment, by name."""
    paths = sorted(results.glob(f"{experiment}.*.csv"))
    return {path.suffixes[0][1:]: pd.read_csv(path) for path in paths}


def run(
    experiment: str,
    about: str | None,
    measure: Callable[[bool], Tables],
    draw: Callable[[Tables], Figure],
) -> None:
    """Measure, keep and print the tables, and draw them where asked.

    ``measure`` takes whether to be quick: small sizes, to see that everything runs.
    """
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--quick", action="store_true", help="small sizes; proves nothing")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the tables")
    parser.add_argument("--figures", type=Path, help="folder to draw the figure into, as PDF")
    options = parser.parse_args()
    if options.quick and options.results == RESULTS:
        sys.exit("--quick needs a --results folder of its own: what the page shows is not quick.")
    options.results.mkdir(parents=True, exist_ok=True)
    for name, table in measure(options.quick).items():
        path = options.results / f"{experiment}.{name}.csv"
        table.to_csv(path, index=False, float_format="%.6g")
        print(f"\n{path.name}\n{table.to_string(index=False)}")
    figure = draw(stored(experiment, options.results))
    if options.figures is not None:
        options.figures.mkdir(parents=True, exist_ok=True)
        figure.savefig(options.figures / f"{experiment}.pdf", bbox_inches="tight")
