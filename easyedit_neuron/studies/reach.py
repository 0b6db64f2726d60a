"""What of a run's edits reaches the text's keys, and whether that orders runs by damage better than distance
does.

An edit's leakage is ``tr(D C D^T) / (||D||^2 tr C)``: how much of its update D the text's keys (covariance C)
see, per unit of squared length. Times the squared distance that the weight has moved it says how much of what
was written the text's keys see:

    reach = sum over layers of  (mean leakage of the edits so far) * (mean L2 distance of the rows of
    W_down)^2

up to factors that the models of one study share. Damage is what the run itself has measured at its
checkpoints: retained facts and perplexity.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

BY = ("reach", "l2")


def reached(
    label: str, checkpoints: Iterable[Mapping[str, Any]], names: Mapping[str, str]
) -> list[dict[str, Any]]:
    """One row per checkpoint that says leakage and distance; none for a method that reports no leakage.

    Args:
        label: of the run.
        checkpoints: lines of its ``checkpoints.jsonl``.
        names: layer, as a checkpoint writes it -> parameter name of its W_down.
    """
    rows = []
    for point in checkpoints:
        found = [
            (point["layers"][layer].get("leakage"), (point["drift"].get(name) or {}).get("l2"))
            for layer, name in names.items()
            if layer in point["layers"]
        ]
        if found and all(part is not None for pair in found for part in pair):
            lengths = [distance[0] for _, distance in found]
            rows.append(
                {
                    "model": label,
                    "edits": point["edits"],
                    "leakage": sum(leak for leak, _ in found) / len(found),
                    "l2": math.hypot(*lengths),
                    "reach": sum(leak * length**2 for (leak, _), length in zip(found, lengths)),
                    "retained": point["final"].get("retained"),
                    "perplexity": point["final"].get("perplexity"),
                }
            )
    return rows


def concordance(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Of the pairs whose y differ the share that x orders in the same way; None without such a pair."""
    signs = [(a - b) * (c - d) for (a, c), (b, d) in combinations(list(zip(x, y)), 2) if c != d]
    return sum(sign > 0 for sign in signs) / len(signs) if signs else None


def orders(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """How many pairs of runs reach and distance order by damage, after as many edits, and of all checkpoints
    of all runs.

    Returns:
        A row per number of edits that several runs have, and one, ``all``: ``<by>_<damage>``, shares of pairs
        in which more of ``by`` goes with more damage: less retained, a higher perplexity.
    """
    counts = dict.fromkeys(sorted(row["edits"] for row in rows))
    groups = {count: [row for row in rows if row["edits"] == count] for count in counts} | {"all": list(rows)}
    made = []
    for count, some in groups.items():
        if len(some) > 1:
            row = {"edits": count, "checkpoints": len(some)}
            for damage, sign in (("retained", -1), ("perplexity", 1)):
                there = [one for one in some if one[damage] is not None]
                for by in BY:
                    row[f"{by}_{damage}"] = concordance(
                        [one[by] for one in there], [sign * one[damage] for one in there]
                    )
            made.append(row)
    return made
