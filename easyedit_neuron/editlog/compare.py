"""The difference of two edited models, computed from their logs."""

import math
from dataclasses import dataclass
from typing import Any

from .log import EditLog
from .summed_change import SummedChange, sum_changes


@dataclass(frozen=True)
class Difference:
    """The difference of two states of models, a and b.

    ``same_base``: the parameters that both edit were the same before. ``both``: pairs (id in a, id in b) of
    the same edits: same changes, method and requests. ``parameters``: name -> {"norm_a", "norm_b": Frobenius
    norms of what all edits of a, of b change; "norm": of the difference of the two; "cosine": between them;
    "neurons_a", "neurons_b", "neurons_both": rows or columns that they touch}.
    """

    same_base: bool
    both: list[tuple[int, int]]
    only_a: list[int]
    only_b: list[int]
    parameters: dict[str, dict[str, Any]]


def diff(a: EditLog, b: EditLog, upto_a: int | None = None, upto_b: int | None = None) -> Difference:
    """Compare two logs, or two states of one, after the entries ``upto_a`` and ``upto_b`` (None: the
    newest)."""
    ids_a, ids_b = a.ids_at(upto_a), b.ids_at(upto_b)
    both, only_a, only_b = _match(a, b, ids_a, ids_b)
    base_a, base_b = a.base.weights, b.base.weights
    shared = base_a.keys() & base_b.keys()
    same_base = all(base_a[name]["fingerprint"] == base_b[name]["fingerprint"] for name in shared)
    sums_a, sums_b = (sum_changes(log[number] for number in ids) for log, ids in ((a, ids_a), (b, ids_b)))
    # The distance comes from the edits that differ alone: the others would cancel only up to rounding.
    rest_a, rest_b = (sum_changes(log[number] for number in ids) for log, ids in ((a, only_a), (b, only_b)))
    parameters = {}
    for name in sorted(sums_a.keys() | sums_b.keys()):
        zero = SummedChange((sums_a.get(name) or sums_b[name]).shape)
        parameters[name] = _compare(*(sums.get(name, zero) for sums in (sums_a, sums_b, rest_a, rest_b)))
    return Difference(same_base, both, only_a, only_b, parameters)


def _match(
    a: EditLog, b: EditLog, ids_a: list[int], ids_b: list[int]
) -> tuple[list[tuple[int, int]], list[int], list[int]]:
    """(pairs of the same edits, ids only in a, ids only in b)."""
    unmatched_b: dict[str, list[int]] = {}
    for number in ids_b:
        unmatched_b.setdefault(b.edit_entry(number)["content"], []).append(number)
    both, only_a = [], []
    for number in ids_a:
        candidates = unmatched_b.get(a.edit_entry(number)["content"])
        if candidates:
            both.append((number, candidates.pop(0)))
        else:
            only_a.append(number)
    matched_b = {number for _, number in both}
    return both, only_a, [number for number in ids_b if number not in matched_b]


def _compare(a: SummedChange, b: SummedChange, rest_a: SummedChange, rest_b: SummedChange) -> dict[str, Any]:
    norm_a, norm_b = _norm(a), _norm(b)
    squared_distance = _norm(rest_a) ** 2 + _norm(rest_b) ** 2 - 2 * rest_a.dot(rest_b)
    neurons_a, neurons_b = a.neurons(), b.neurons()
    cosine = a.dot(b) / (norm_a * norm_b) if norm_a and norm_b else None
    norms = {"norm_a": norm_a, "norm_b": norm_b, "norm": math.sqrt(max(squared_distance, 0.0))}
    neurons = {"neurons_a": len(neurons_a), "neurons_b": len(neurons_b)}
    return norms | {"cosine": cosine} | neurons | {"neurons_both": len(neurons_a & neurons_b)}


def _norm(change: SummedChange) -> float:
    return math.sqrt(max(change.dot(change), 0.0))
