"""Repeated measurements: means, and how far the measurements lie apart."""

import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from ..utils.lists import mean


def deviation(values: Iterable[float | None]) -> float | None:
    """Standard deviation (n - 1) of the values that are not None; None for fewer than two."""
    values = [value for value in values if value is not None]
    return statistics.stdev(values) if len(values) > 1 else None


def average_rows(
    rows: Iterable[Mapping[str, Any]], by: Sequence[str], with_std: Collection[str] = ()
) -> list[dict[str, Any]]:
    """Average all rows that agree in the columns ``by``; the others hold numbers or None.

    The standard deviation of the columns ``with_std`` follows their mean as ``<column>_std``.
    """
    groups: dict[tuple, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in by), []).append(row)
    averages = []
    for key, group in groups.items():
        average = dict(zip(by, key))
        for name in (name for name in group[0] if name not in by):
            average[name] = mean(row[name] for row in group)
            if name in with_std:
                average[f"{name}_std"] = deviation(row[name] for row in group)
        averages.append(average)
    return averages
