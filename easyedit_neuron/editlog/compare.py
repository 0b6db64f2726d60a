"""What two edited models differ in, told from their logs."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

from .log import EditLog
from .total import Total, totals


@dataclass(frozen=True)
class Difference:
    """Two states of models, a and b.

    Attributes:
        same_base: the parameters that both edit were the same before.
        both: pairs (id in a, id in b) of the same edits: same changes, method and requests.
        only_a, only_b: ids of the others.
        parameters: name -> {"norm_a", "norm_b": Frobenius norms of what all edits of a, of b change; "norm":
            of the difference of the two; "cosine": between them; "neurons_a", "neurons_b", "neurons_both":
            rows or columns that they touch}.
    """

    same_base: bool
    both: list[tuple[int, int]]
    only_a: list[int]
    only_b: list[int]
    parameters: dict[str, dict[str, Any]]


def diff(a: EditLog, b: EditLog, upto_a: int | None = None, upto_b: int | None = None) -> Difference:
    """Compares two logs, or two states of one.

    Args:
        a, b: logs; the same one for two of its states.
        upto_a, upto_b: entries after which they are compared; unset: the newest.

    Raises:
        StateError: an unknown entry, or a file that is missing or was changed.
    """
    ids_a, ids_b = a.ids_at(upto_a), b.ids_at(upto_b)
    waiting: dict[str, list[int]] = {}
    for number in ids_b:
        waiting.setdefault(b.line(number)["content"], []).append(number)
    both, only_a = [], []
    for number in ids_a:
        same = waiting.get(a.line(number)["content"])
        if same:
            both.append((number, same.pop(0)))
        else:
            only_a.append(number)
    matched = Counter(number for _, number in both)
    only_b = [number for number in ids_b if not matched[number]]
    first, second = a.base.weights, b.base.weights
    same_base = all(
        first[name]["fingerprint"] == second[name]["fingerprint"] for name in first.keys() & second.keys()
    )
    all_a, all_b = totals(a[number] for number in ids_a), totals(b[number] for number in ids_b)
    # from the edits that differ alone: the others would cancel up to rounding
    rest_a, rest_b = totals(a[number] for number in only_a), totals(b[number] for number in only_b)
    parameters = {
        name: _compared(all_a.get(name), all_b.get(name), rest_a.get(name), rest_b.get(name))
        for name in sorted(all_a.keys() | all_b.keys())
    }
    return Difference(same_base, both, only_a, only_b, parameters)


def _compared(a: Total | None, b: Total | None, rest_a: Total | None, rest_b: Total | None) -> dict[str, Any]:
    norm_a, norm_b = _norm(a), _norm(b)
    cross = a.dot(b) if a is not None and b is not None else 0.0
    squared = _norm(rest_a) ** 2 + _norm(rest_b) ** 2
    if rest_a is not None and rest_b is not None:
        squared -= 2 * rest_a.dot(rest_b)
    neurons = [set() if total is None else total.neurons() for total in (a, b)]
    return {
        "norm_a": norm_a,
        "norm_b": norm_b,
        "norm": math.sqrt(max(squared, 0.0)),
        "cosine": cross / (norm_a * norm_b) if norm_a and norm_b else None,
        "neurons_a": len(neurons[0]),
        "neurons_b": len(neurons[1]),
        "neurons_both": len(neurons[0] & neurons[1]),
    }


def _norm(total: Total | None) -> float:
    return 0.0 if total is None else math.sqrt(max(total.dot(total), 0.0))
