"""The stream of edits: its order, its batches, and which edits are of the same fact.

Two edits are of the same fact if they have the same prompt and the same subject; the last one wins. In the
final protocol a fact is measured once, by the last of its edits so far, even if that edit failed. The
immediate protocol measures every edit. A later edit of a fact is a duplicate if it has the same new object,
else a contradiction.
"""

import functools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..utils.spelling import fact_of


@dataclass(frozen=True)
class Stream:
    """Edits in the order in which they are made; ``records``: of each request, its position in the data."""

    requests: list[dict[str, Any]]
    records: list[int]
    batch_size: int = 1

    @classmethod
    def of(
        cls,
        requests: list[dict],
        order: Literal["file", "shuffled"] = "file",
        seed: int = 0,
        batch_size: int = 1,
        numbers: Sequence[int] | None = None,
    ) -> "Stream":
        """The stream in the order of the file, or shuffled by a generator of its own; ``numbers``: positions
        of the requests in the data, where they are a sample."""
        places = list(range(len(requests)))
        if order == "shuffled":
            random.Random(seed).shuffle(places)
        records = [place if numbers is None else numbers[place] for place in places]
        return cls([requests[place] for place in places], records, batch_size)

    def first(self, count: int) -> "Stream":
        """The stream that ends after so many edits."""
        return Stream(self.requests[:count], self.records[:count], self.batch_size)

    def __len__(self) -> int:
        return len(self.requests)

    @property
    def batches(self) -> int:
        return -(-len(self) // self.batch_size)

    def batch(self, first: int) -> range:
        """Positions of the batch that begins at ``first``."""
        return range(first, min(first + self.batch_size, len(self)))

    def superseded(self, count: int | None = None) -> dict[int, int]:
        """Position -> position of the fact's last edit, for those of the first ``count`` that are not it."""
        facts = [fact_of(request) for request in self.requests[:count]]
        last = {fact: position for position, fact in enumerate(facts)}
        return {position: last[fact] for position, fact in enumerate(facts) if last[fact] != position}

    @functools.cached_property
    def superseded_at_end(self) -> dict[int, int]:
        return self.superseded()

    def repeats(self) -> tuple[int, int]:
        """Numbers of (duplicates, contradictions): later edits of a fact, to the same new object or
        another."""
        targets: dict[tuple, str] = {}
        duplicates = contradictions = 0
        for request in self.requests:
            fact, target = fact_of(request), request["target_new"].strip()
            if fact in targets:
                duplicates += targets[fact] == target
                contradictions += targets[fact] != target
            targets[fact] = target
        return duplicates, contradictions


def cut(checkpoints: list[int], length: int) -> list[int]:
    """The checkpoints of a stream: those below its length, and its end."""
    return sorted({count for count in checkpoints if count < length} | {length})
