"""``ntk-uq info``: the card of a model that was saved."""

import argparse
import json
from pathlib import Path
from typing import Any

from ntk_uq.cli.options import STATUS

__all__ = ["add_parser"]

_EXAMPLES = (
    """\
examples:
  ntk-uq info model.ntk
  ntk-uq info model.ntk --json > model.json
  ntk-uq info model.ntk --json | jq .trained_on.sha256

Any file of nuq.save and of ntk-uq fit will do. Nothing of it is run, and no network is asked for.

"""
    + STATUS
)
# Features whose ranges are printed, categories of one, groups of held-out rows, and numbers of a
# setting.
_MOST_FEATURES, _MOST_CATEGORIES, _MOST_GROUPS, _MOST_NUMBERS = 30, 8, 40, 4


def add_parser(commands: Any) -> None:
    """Add the command to the shell's."""
    parser = commands.add_parser(
        "info",
        usage="%(prog)s MODEL [--json]",
        help="say what a model is: trained on what, chosen how, its limits",
        description="Print the card of a model: what was trained, on which data, chosen how, and "
        "its limits.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "model", type=Path, metavar="MODEL", help="a file of ntk-uq fit or nuq.save"
    )
    parser.add_argument("--json", action="store_true", help="print it whole, for machines")


def run(arguments: argparse.Namespace) -> None:
    """Print the card."""
    if not arguments.model.is_file():
        raise ValueError(f"there is no model {arguments.model}; ntk-uq fit writes one")
    from ntk_uq.persistence.opening import model_card

    card = model_card(arguments.model)
    if arguments.json:
        print(json.dumps(card, indent=2, allow_nan=False))
        return
    print("\n".join(_lines(card)))


def _lines(card: dict[str, Any]) -> list[str]:
    """The card in words, a line each."""
    written = f", written {card['written']}" if card["written"] else ""
    packages = ", ".join(f"{name} {version}" for name, version in card["written_by"].items())
    within = "" if card["model"] == card["estimator"] else f", in a {card['model']}"
    lines = [
        f"{card['estimator']}{within}",
        f"  file: format {card['format']}{written}, by {packages}",
        f"  network: {_arguments(card['network'])}",
        f"  settings: {_arguments(card['settings']) or 'the defaults'}",
        f"  chosen: {_choice(card['chosen'])}",
        *_mixture(card["chosen"].get("mixture")),
    ]
    if card["conformal"] is not None:
        conformal = card["conformal"]
        # Earlier versions did not say which promise it is.
        plain = f"{conformal['kind']} at {conformal['level']:g}"
        lines.append(f"  promised: {conformal.get('guarantee', plain)}")
    lines += [f"  {words[0].lower()}{words[1:]}" for words in card.get("decisions", ())]
    lines += _data(card["trained_on"])
    lines += _calibration(card.get("calibration"))
    return [*lines, "Limits", *(f"  {sentence}" for sentence in card["limits"])]


def _arguments(values: dict[str, Any]) -> str:
    kind = values.get("kind", "")
    inner = ", ".join(f"{name}={_value(value)}" for name, value in values.items() if name != "kind")
    return f"{kind}({inner})" if kind else inner


def _value(value: Any) -> str:
    """A setting; of many numbers, such as the scale of each feature, how many and how large."""
    if isinstance(value, float):
        return f"{value:.6g}"
    numbers = isinstance(value, list) and all(isinstance(v, int | float) for v in value)
    if numbers and len(value) > _MOST_NUMBERS:
        return f"{len(value)} numbers from {min(value):.3g} to {max(value):.3g}"
    return str(value)


def _mixture(mixture: dict[str, Any] | None) -> list[str]:
    """The networks that predict together, of which what is chosen is the first."""
    if mixture is None:
        return []
    parts = [
        f"{one['weight']:.4g} {one['name']} at reg {one['reg']:.4g}" for one in mixture["networks"]
    ]
    score = mixture["held_out_log_probability"]
    return [f"  with it, mixed: {'; '.join(parts)}: {score:.4g} nats a held-out point"]


def _choice(chosen: dict[str, Any]) -> str:
    words = f"reg {chosen['reg']:.4g}"
    if "label_weight" in chosen:
        words += f", each label counting {chosen['label_weight']:,.0f} times"
    if chosen["by"] is None:
        return f"{words}, as given" if chosen.get("given", True) else f"{words}, as none was given"
    among = f", {chosen['chosen']} among {len(chosen['among'])}" if len(chosen["among"]) > 1 else ""
    if chosen["by"] == "cv":
        score = f"{chosen['held_out_log_probability']:.4g} nats a held-out point"
        return f"{words}{among}, by cross-validation: log probability {score}"
    return f"{words}{among}, by the evidence: {chosen['log_evidence']:.4g} nats"


def _data(trained_on: dict[str, Any] | None) -> list[str]:
    if trained_on is None:
        return ["Trained on data of which an earlier version kept nothing"]
    target = f", target {trained_on['target']!r}" if "target" in trained_on else ""
    lines = [
        f"Trained on {trained_on['rows']:,} rows{target}",
        f"  sha256 {trained_on['sha256']}",
    ]
    if "classes" in trained_on:
        counts = ", ".join(f"{label} {count:,}" for label, count in trained_on["classes"])
        lines.append(f"  classes: {counts}")
    else:
        lines += [f"  target {_range(values)}" for values in trained_on["targets"]]
    features = trained_on["features"]
    lines += [f"  {feature['name']}: {_range(feature)}" for feature in features[:_MOST_FEATURES]]
    if len(features) > _MOST_FEATURES:
        lines.append(f"  and {len(features) - _MOST_FEATURES} more features: --json has them")
    return lines


def _calibration(groups: list[dict[str, Any]] | None) -> list[str]:
    """What held-out rows say, group by group."""
    if not groups:
        return [
            "Calibration: unknown, as no rows were held out",
            "  ntk-uq fit --conformal 0.9 holds a fifth out; nuq.save takes held_out=(X, y)",
        ]
    lines = [
        f"Calibration on {groups[0]['points']:,} rows that were held out: promised, and found "
        "(99% interval)"
    ]
    for group in groups[:_MOST_GROUPS]:
        name = "all" if group["by"] == "all" else f"{group['by']} {group['group']}"
        lines.append(
            f"  {name}, {group['points']:,} rows: {group['promised']:.3f}, {group['found']:.3f} "
            f"({group['lower']:.3f} to {group['upper']:.3f})"
        )
    if len(groups) > _MOST_GROUPS:
        lines.append(f"  and {len(groups) - _MOST_GROUPS} more groups: --json has them")
    return lines


def _range(feature: dict[str, Any]) -> str:
    if not feature.get("categories", True) or feature.get("low", 0) is None:
        return "empty in all rows, and left out"
    if "categories" in feature:
        known = [str(value) for value in feature["categories"]]
        more = f" and {len(known) - _MOST_CATEGORIES} more" if len(known) > _MOST_CATEGORIES else ""
        return f"{', '.join(known[:_MOST_CATEGORIES])}{more}"
    missing = f", {feature['missing']:,} missing" if feature["missing"] else ""
    return f"{feature['low']:.6g} to {feature['high']:.6g}{missing}"
