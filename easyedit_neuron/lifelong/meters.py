"""Seconds by part of the run, and memory."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager

import torch


class Clock:
    """Seconds per named part of the run; goes on where an interrupted run was."""

    def __init__(self):
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str):
        start = time.perf_counter()
        yield
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.add(name, time.perf_counter() - start)

    def add(self, name: str, seconds: float) -> None:
        """Counts some seconds for a part."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    @property
    def evaluation_share(self) -> float:
        """Seconds of measuring / all seconds."""
        measured = sum(spent for name, spent in self.seconds.items() if name.startswith("measure"))
        return measured / max(sum(self.seconds.values()), 1e-9)


class Memory:
    """Peaks in MiB: resident set of the process (a whole sweep's where several runs share one), and of the
    CUDA devices together."""

    def __init__(self):
        self._before: dict[str, float | None] = {}
        if torch.cuda.is_available():
            for device in range(torch.cuda.device_count()):
                torch.cuda.reset_peak_memory_stats(device)

    def load(self, earlier: dict[str, float | None]) -> None:
        """Counts the peaks of the process that this one goes on from."""
        self._before = earlier

    def peaks(self) -> dict[str, float | None]:
        """``rss_peak_mib`` and ``cuda_peak_mib``; None where there is no such number."""
        cuda = None
        if torch.cuda.is_available():
            cuda = (
                sum(torch.cuda.max_memory_allocated(device) for device in range(torch.cuda.device_count()))
                / 2**20
            )
        now = {"rss_peak_mib": _resident(), "cuda_peak_mib": cuda}
        return {
            name: max((v for v in (value, self._before.get(name)) if v is not None), default=None)
            for name, value in now.items()
        }


def _resident() -> float | None:
    try:
        import resource
    except ImportError:  # not on this system
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
