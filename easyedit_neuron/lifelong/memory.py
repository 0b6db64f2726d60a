"""Peak memory of a run."""

from __future__ import annotations

import sys

import torch


class PeakMemory:
    """Peaks in MiB: resident set of the process (which several runs of a sweep may share), and of the CUDA
    devices together."""

    def __init__(self):
        self._earlier: dict[str, float | None] = {}
        if torch.cuda.is_available():
            for device in range(torch.cuda.device_count()):
                torch.cuda.reset_peak_memory_stats(device)

    def load(self, earlier: dict[str, float | None]) -> None:
        """Include the peaks of the interrupted process that this run continues."""
        self._earlier = earlier

    def peaks(self) -> dict[str, float | None]:
        """``rss_peak_mib`` and ``cuda_peak_mib``; None where the system does not provide the number."""
        now = {"rss_peak_mib": _resident_mib(), "cuda_peak_mib": _cuda_mib()}
        peaks = {}
        for name, value in now.items():
            values = [peak for peak in (value, self._earlier.get(name)) if peak is not None]
            peaks[name] = max(values, default=None)
        return peaks


def _cuda_mib() -> float | None:
    if not torch.cuda.is_available():
        return None
    devices = range(torch.cuda.device_count())
    return sum(torch.cuda.max_memory_allocated(device) for device in devices) / 2**20


def _resident_mib() -> float | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
