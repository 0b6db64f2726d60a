"""Peer and ours in the same run: taken in turns after a warm-up, medians, ratio and spread, results as
JSON."""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Result:
    """Seconds of both, run by run.

    Attributes:
        peer, ours: one entry a run; entry i of both was measured one right after the other.
    """

    peer: list[float]
    ours: list[float]

    @property
    def ratio(self) -> float:
        """Median of the peer over median of ours: above 1, ours is faster."""
        return statistics.median(self.peer) / statistics.median(self.ours)

    @property
    def spread(self) -> tuple[float, float]:
        """Lowest and highest ratio of a pair of neighbouring runs."""
        ratios = [peer / ours for peer, ours in zip(self.peer, self.ours)]
        return min(ratios), max(ratios)


def seconds(run: Callable[[], object]) -> float:
    """Wall-clock seconds of one call, with the work that it queued on a GPU."""
    _synchronise()
    start = time.perf_counter()
    run()
    _synchronise()
    return time.perf_counter() - start


def alternate(
    peer: Callable[[], object], ours: Callable[[], object], repeats: int, warm_up: int = 1
) -> Result:
    """Times ``repeats`` pairs after ``warm_up`` unmeasured ones; who goes first changes from pair to pair."""
    for _ in range(warm_up):
        peer()
        ours()
    result = Result([], [])
    for number in range(repeats):
        pair = [(result.peer, peer), (result.ours, ours)]
        for times, run in pair if number % 2 == 0 else reversed(pair):
            times.append(seconds(run))
    return result


def report(name: str, result: Result) -> dict:
    """Prints one line and gives back what belongs into the JSON file."""
    low, high = result.spread
    peer, ours = statistics.median(result.peer), statistics.median(result.ours)
    print(
        f"{name:<44} peer {_readable(peer):>9}  ours {_readable(ours):>9}  ratio {result.ratio:8.1f}"
        f"  ({low:.1f} to {high:.1f}, {len(result.peer)} pairs)",
        flush=True,
    )
    return {
        "name": name,
        "peer_seconds": result.peer,
        "ours_seconds": result.ours,
        "ratio": result.ratio,
        "spread": [low, high],
    }


def parser(description: str) -> argparse.ArgumentParser:
    """An argument parser with ``--json`` and ``--device``."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    made.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    return made


def write_json(path: Path | None, results: object, **settings) -> None:
    """Writes results, settings and what they were measured on; no path: nothing."""
    if path is None:
        return
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    machine = {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
        "gpu": gpu,
        "platform": platform.platform(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps({"machine": machine, "settings": settings, "results": results}, indent=1, default=str)
        + "\n"
    )


def free_bytes(device: str) -> int:
    """Memory that a program may still take on a device."""
    if torch.device(device).type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    for line in Path("/proc/meminfo").read_text().splitlines() if Path("/proc/meminfo").exists() else ():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _readable(duration: float) -> str:
    return f"{duration:.2f} s" if duration >= 1 else f"{duration * 1e3:.2f} ms"
