"""Bootstrap intervals over records."""

from collections.abc import Sequence

import numpy

RESAMPLES = 2000


def mean_interval(
    values: Sequence[float | None], level: float = 0.95, seed: int = 0
) -> tuple[float, float, float] | None:
    """Mean, and the percentile bootstrap interval of the mean over records; None without a value.

    Records without a value (None) do not count. The same seed gives the same interval.
    """
    numbers = numpy.array([value for value in values if value is not None], dtype=float)
    if not len(numbers):
        return None
    drawn = numpy.random.default_rng(seed).integers(0, len(numbers), (RESAMPLES, len(numbers)))
    tail = 100 * (1 - level) / 2
    low, high = numpy.percentile(numbers[drawn].mean(1), [tail, 100 - tail])
    return float(numbers.mean()), float(low), float(high)


def paired_difference(
    first: Sequence[float | None], second: Sequence[float | None], level: float = 0.95, seed: int = 0
) -> tuple[float, float, float] | None:
    """``mean_interval`` of ``first - second``, record by record; records that lack one of the two do not
    count."""
    pairs = zip(first, second, strict=True)
    return mean_interval([a - b if a is not None and b is not None else None for a, b in pairs], level, seed)
