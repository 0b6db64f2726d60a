"""Peak memory of a run."""

import sys

import torch


def reset_peak_memory() -> None:
    """Begin to count the CUDA devices' peaks anew; that of the process cannot be reset."""
    for device in range(torch.cuda.device_count()):
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(earlier: dict[str, float | None]) -> dict[str, float | None]:
    """``rss_peak_mib`` of the process and ``cuda_peak_mib`` of all devices together; None if unreadable.

    ``earlier``: the peaks of the interrupted process that this run continues, or ``{}``.
    """
    devices = range(torch.cuda.device_count())
    cuda = sum(torch.cuda.max_memory_allocated(device) for device in devices) / 2**20 if devices else None
    peaks = {}
    for name, value in (("rss_peak_mib", _resident_mib()), ("cuda_peak_mib", cuda)):
        values = [peak for peak in (value, earlier.get(name)) if peak is not None]
        peaks[name] = max(values, default=None)
    return peaks


def _resident_mib() -> float | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
