"""Seconds by stage."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Stopwatch:
    """Adds up seconds by stage.

    Attributes:
        seconds: stage -> seconds so far, in the order in which the stages first ended.
    """

    def __init__(self):
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Book the time since the last lap (or since the stopwatch was made) under ``stage``."""
        now = _now()
        self.add(stage, now - self._last)
        self._last = now

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Book the time of a block, unless the block fails."""
        start = time.perf_counter()
        yield
        self.add(stage, _now() - start)

    def add(self, stage: str, seconds: float) -> None:
        """Book seconds that were measured elsewhere."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
