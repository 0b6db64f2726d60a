"""What was measured several times: means, and how far the measurements lie apart."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def mean(values: Iterable[float | None]) -> float | None:
    """Of the values that are there; None where none is."""
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None


def deviation(values: Iterable[float | None]) -> float | None:
    """Standard deviation of the values that are there (divided by n - 1); None for fewer than two."""
    there = [value for value in values if value is not None]
    return statistics.stdev(there) if len(there) > 1 else None


def over(rows: Sequence[Mapping[str, Any]], by: Sequence[str], spread: Sequence[str]) -> list[dict[str, Any]]:
    """One row for all that agree in the columns ``by``, in the order in which they first occur.

    Args:
        rows: of the same columns.
        by: columns that are kept.
        spread: columns of numbers whose ``deviation`` follows as ``<column>_std``; the others have their mean
            alone.
    """
    groups: dict[tuple, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in by), []).append(row)
    made = []
    for key, some in groups.items():
        one = dict(zip(by, key))
        for name in (name for name in some[0] if name not in by):
            one[name] = mean(row[name] for row in some)
            if name in spread:
                one[f"{name}_std"] = deviation(row[name] for row in some)
        made.append(one)
    return made
