"""Means and samples of lists."""

from collections.abc import Iterable
from typing import TypeVar

Item = TypeVar("Item")


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of the values that are not None; None if there are none."""
    numbers = [value for value in values if value is not None]
    return sum(numbers) / len(numbers) if numbers else None


def evenly(items: list[Item], count: int | None) -> list[Item]:
    """At most ``count`` items, spread over the whole list (data are often ordered by subject)."""
    if count is None or count >= len(items):
        return list(items)
    return [items[i * len(items) // count] for i in range(count)]
