"""The page: everything put into the template, and written."""

import os
import platform
import re
from collections.abc import Mapping
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np
from matplotlib import rc_context
from numpy.typing import ArrayLike, NDArray

from ntk_uq._common.files import write_result
from ntk_uq._common.versions import versions
from ntk_uq.plots import method_style
from ntk_uq.report.choice import RegChoice, choice_findings, with_own
from ntk_uq.report.figures import (
    choice_figures,
    distance_figure,
    latent_figures,
    point_figures,
    reliability_figures,
    small_ensembles,
    uncertainty_figures,
)
from ntk_uq.report.samplers import sampler_checks
from ntk_uq.report.sentences import calibration_findings, findings
from ntk_uq.report.tables import pair_rows, table_rows

if TYPE_CHECKING:  # rooms above, or loaded where they are used
    from ntk_uq.compare import Comparison


_PACKAGES = ("jax", "flax", "numpyro", "arviz", "scikit-learn", "numpy", "scipy")
# Lengths are for a picture that a phone shows in full width.
_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.fontsize": 8,
    "svg.hashsalt": "ntk_uq",
    # Names come from the user, and a dollar sign in them is no formula.
    "text.parse_math": False,
}


def write_report(
    comparison: "Comparison",
    path: str | os.PathLike[str],
    *,
    title: str,
    about: Mapping[str, str],
    run: Mapping[str, object],
    images: ArrayLike | None = None,
    reg: RegChoice | None = None,
) -> None:
    """Write the report; see `Comparison.to_html`.

    Parameters
    ----------
    comparison : Comparison
        What to report.
    path : str or path
        Where to write; an existing file is replaced, and only by a complete one.
    title : str
        Heading.
    about : mapping
        A sentence about each method.
    run : mapping
        Facts about the run, shown as given.
    images : array of shape [m, height, width] or [m, height, width, 3], optional
        The test points as pictures.
    reg : RegChoice, optional
        How the regularisation was chosen.
    """
    if comparison.classes is None:
        raise ValueError(
            "The report is about class probabilities; of regressors, see table, distance_table "
            "and plot()."
        )
    unknown = [name for name in about if name not in comparison.methods]
    if unknown:
        raise ValueError(
            f"about describes {unknown}, but the methods are {list(comparison.methods)}."
        )
    pictures = None if images is None else _validated_images(images, comparison.n_points)
    template = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).from_string((files("ntk_uq.report") / "report.html.jinja").read_text(encoding="utf-8"))
    overall, by_method = findings(comparison)
    everything = with_own(comparison, reg)
    with rc_context(_STYLE):
        html = template.render(
            title=title,
            created=datetime.now().astimezone(),
            comparison=comparison,
            overall=overall,
            by_method=by_method,
            table=table_rows(comparison),
            pairs=pair_rows(comparison),
            styles={name: method_style(everything, name) for name in everything.methods},
            choice=reg,
            names=list(comparison.methods),
            reg_words=_reg_words(comparison),
            choice_sentences=[] if reg is None else choice_findings(reg),
            choice_figures=[] if reg is None else choice_figures(reg),
            calibration=calibration_findings(comparison, reg),
            distances=distance_figure(comparison),
            reliability=reliability_figures(everything),
            uncertainty=uncertainty_figures(comparison),
            latents=latent_figures(comparison),
            small_ensembles=small_ensembles(comparison),
            points=point_figures(comparison, pictures),
            samplers=sampler_checks(everything),
            about=about,
            run=run,
            versions={"Python": platform.python_version(), **versions(*_PACKAGES)},
        )
    path = Path(path)
    if path.exists() and not path.is_file():
        raise OSError(f"{path} is not a regular file, so it cannot be replaced by a report.")
    write_result(path, lambda file: file.write(html.encode()))


def _reg_words(comparison: "Comparison") -> str:
    """The regularisation of the methods, where they have one each, as their estimators say it."""
    found = {
        name: match[1]
        for name, method in comparison.methods.items()
        if (match := re.search(r"[(,\s]reg=([\d.e+-]+)", method.estimator))
    }
    values = set(found.values())
    if len(found) < len(comparison.methods) or not values:
        return ""
    if len(values) == 1:
        return f"all with reg = {float(values.pop()):.3g}"
    return "with " + ", ".join(f"reg = {float(v):.3g} ({name})" for name, v in found.items())


def _validated_images(images: ArrayLike, n_points: int) -> NDArray:
    array = np.asarray(images)
    is_grey, is_colour = array.ndim == 3, array.ndim == 4 and array.shape[-1] in (3, 4)
    if len(array) != n_points or not (is_grey or is_colour):
        raise ValueError(
            f"images must have shape [{n_points}, height, width] or [{n_points}, height, width, 3],"
            f" one for each test point, got {array.shape}."
        )
    return array
