"""What of a run's edits reaches the text's keys, and whether that orders runs by damage better than distance.

An edit's leakage is ``tr(D C D^T) / (||D||^2 tr C)``: how much of its update D the text's keys (covariance C)
see, per unit of squared length. Up to factors that the models of one study share,

    reach = sum over layers of  (mean leakage of the edits so far) * (mean L2 distance of W_down's rows)^2
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

PREDICTORS = ("reach", "l2")


def reached(
    label: str, checkpoints: Iterable[Mapping[str, Any]], names: Mapping[str, str]
) -> list[dict[str, Any]]:
    """A row per checkpoint that has leakage and distance; none for a method that reports no leakage.

    ``names``: layer, as a checkpoint writes it -> parameter name of its W_down.
    """
    rows = []
    for checkpoint in checkpoints:
        layers = [layer for layer in names if layer in checkpoint["layers"]]
        leakages = [checkpoint["layers"][layer].get("leakage") for layer in layers]
        distances = [(checkpoint["drift"].get(names[layer]) or {}).get("l2") for layer in layers]
        if not layers or None in leakages or None in distances:
            continue
        lengths = [mean for mean, _ in distances]
        row = {"model": label, "edits": checkpoint["edits"], "leakage": sum(leakages) / len(leakages)}
        row["l2"] = math.hypot(*lengths)
        row["reach"] = sum(leakage * length**2 for leakage, length in zip(leakages, lengths))
        rows.append(row | {name: checkpoint["final"].get(name) for name in ("retained", "perplexity")})
    return rows


def concordance(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Of the pairs whose y differ, the share that x orders in the same way; None without such a pair."""
    signs = [(a - b) * (c - d) for (a, c), (b, d) in combinations(list(zip(x, y)), 2) if c != d]
    return sum(sign > 0 for sign in signs) / len(signs) if signs else None


def orders(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """How many pairs of checkpoints (``rows`` of ``reached``) reach and distance order by damage.

    A row per number of edits that several runs have, and one for all, ``all``: ``<predictor>_<damage>``, the
    share of pairs in which a higher predictor goes with fewer facts retained, or with a higher perplexity.
    """
    groups: dict[Any, list] = {}
    for row in sorted(rows, key=lambda row: row["edits"]):
        groups.setdefault(row["edits"], []).append(row)
    groups["all"] = list(rows)
    shares = []
    for edits, group in groups.items():
        if len(group) < 2:
            continue
        share = {"edits": edits, "checkpoints": len(group)}
        for damage, sign in (("retained", -1), ("perplexity", 1)):
            measured = [row for row in group if row[damage] is not None]
            damages = [sign * row[damage] for row in measured]
            for predictor in PREDICTORS:
                share[f"{predictor}_{damage}"] = concordance([row[predictor] for row in measured], damages)
        shares.append(share)
    return shares
