"""Splits without overlap: settings are chosen on some records, results are reported on others."""

import random
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

from ..errors import DataError

Request = dict[str, Any]


def without(requests: Iterable[Request], *others: Iterable[Request]) -> list[Request]:
    """The requests whose prompt and whose subject occur in none of ``others``.

    Texts are compared without case, in Unicode form NFKC, with blanks as single spaces.
    """
    prompts, subjects = set(), set()
    for request in (request for other in others for request in other):
        prompts.add(_normal(request["prompt"]))
        subjects.add(_normal(request["subject"]))
    return [
        request
        for request in requests
        if _normal(request["prompt"]) not in prompts and _normal(request["subject"]) not in subjects
    ]


def split(requests: Sequence[Request], size: int, seed: int = 0) -> tuple[list[Request], list[Request]]:
    """Draw ``size`` requests; return them and those of the rest whose subjects were not drawn.

    Args:
        requests: with ``prompt`` and ``subject``; their order is kept in both parts.
        size: number of the first part, which then holds no two records of one prompt twice by accident of
            the draw: it is a plain sample without replacement.
        seed: of the draw; the same seed gives the same split.

    Raises:
        DataError: there are not more than ``size`` requests.
    """
    if not 0 < size < len(requests):
        raise DataError(f"a split of {size} needs more records than the {len(requests)} there are")
    numbers = sample(len(requests), size, seed)
    drawn = [requests[number] for number in numbers]
    chosen = set(numbers)
    rest = [request for number, request in enumerate(requests) if number not in chosen]
    return drawn, without(rest, drawn)


def sample(count: int, size: int, seed: int) -> list[int]:
    """``size`` of the numbers 0 to ``count`` - 1, ascending, the same ones for the same seed.

    Raises:
        DataError: there are fewer.
    """
    if size > count:
        raise DataError(f"a sample of {size} needs more records than the {count} there are")
    return sorted(random.Random(seed).sample(range(count), size))


def _normal(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
