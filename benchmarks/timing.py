"""Time a peer and ours in the same process: in turns after a warm-up, medians, ratio and spread, results as
JSON."""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

FILES = ("json", "append")
"""Options that name where results go."""
COLUMNS = ("date", "program", "what", "peer", "ours", "ratio", "floor", "machine", "versions")


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

    def per_request(self, batch: int, peer_batch: int = 1) -> "Result":
        """Seconds per request where ours takes ``batch`` requests at a time."""
        return Result([s / peer_batch for s in self.peer], [s / batch for s in self.ours])


def timed(run: Callable, *args, **kwargs) -> tuple[Any, float]:
    """Result and seconds of one call, see ``clock``, with the work that it queued on a GPU."""
    _synchronise()
    start = clock()
    result = run(*args, **kwargs)
    _synchronise()
    return result, clock() - start


def clock() -> float:
    """CPU seconds of this process where torch has one thread and no GPU: what else the machine does then
    hardly counts. Wall-clock seconds otherwise."""
    alone = torch.get_num_threads() == 1 and not torch.cuda.is_available()
    return time.process_time() if alone else time.perf_counter()


def seconds(run: Callable, *args, **kwargs) -> float:
    """Seconds of one call, see ``clock``."""
    return timed(run, *args, **kwargs)[1]


def alternate(
    peer: Callable[[], object], ours: Callable[[], object], repeats: int, warm_up: int = 1
) -> Result:
    """Time ``repeats`` pairs after ``warm_up`` unmeasured ones; the order changes from pair to pair."""
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
    """Print one line and return what belongs into the JSON file."""
    low, high = result.spread
    peer, ours = (_readable(statistics.median(times)) for times in (result.peer, result.ours))
    print(
        f"{name:<44} peer {peer:>9}  ours {ours:>9}  ratio {result.ratio:8.1f}"
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


def milliseconds(seconds_by_stage: dict[str, float]) -> str:
    """``target 12 ms, solve 3 ms``."""
    return ", ".join(f"{stage} {spent * 1e3:.0f} ms" for stage, spent in seconds_by_stage.items())


def markdown_row(cells) -> str:
    """A row of a Markdown table."""
    return "| " + " | ".join(map(str, cells)) + " |"


def parser(doc: str, **integers: int) -> argparse.ArgumentParser:
    """A parser with ``--json``, ``--append``, ``--device``, and an option for every integer."""
    result = argparse.ArgumentParser(description=doc.splitlines()[0])
    result.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    result.add_argument("--append", type=Path, metavar="FILE", help="add the ratios to this Markdown table")
    result.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    for name, default in integers.items():
        option = f"--{name.replace('_', '-')}"
        result.add_argument(option, type=int, default=default, help="default: %(default)s")
    return result


def parse(arguments: argparse.ArgumentParser, argv: list[str] | None = None) -> argparse.Namespace:
    """Parse, and let torch use the number of ``--threads``."""
    args = arguments.parse_args(argv)
    if "threads" in args:
        torch.set_num_threads(args.threads)
    return args


def save(args: argparse.Namespace, results: object, **settings) -> None:
    """Write results, arguments, other settings and the machine to ``--json``, and a line for each row of
    ``report`` to ``--append``; without these, nothing."""
    machine = {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "platform": platform.platform(),
    }
    if args.append is not None:
        timed_rows = [row for row in results if "peer_seconds" in row] if isinstance(results, list) else []
        _append(args.append, timed_rows, machine)
    if args.json is None:
        return
    settings = {name: value for name, value in vars(args).items() if name not in FILES} | settings
    content = {"machine": machine, "settings": settings, "results": results}
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(content, indent=1, default=str) + "\n", encoding="utf-8")


def _append(file: Path, rows: list[dict], machine: dict[str, Any]) -> None:
    """Lines of a Markdown table, the last thing in a file; its head where it is not there yet. Without rows
    nothing."""
    if not rows:
        return
    place = machine["gpu"] or f"{machine['cpus']} CPUs, {machine['threads']} of torch's threads"
    versions = f"torch {machine['torch']}, transformers {metadata.version('transformers')}"
    lines = []
    for row in rows:
        floor = row.get("floor_seconds")
        floor = sum(floor.values()) if isinstance(floor, dict) else floor
        peer, ours = (statistics.median(row[f"{who}_seconds"]) for who in ("peer", "ours"))
        cells = [time.strftime("%Y-%m-%d"), f"`{Path(sys.argv[0]).stem}`", row["name"], _readable(peer)]
        low, high = row["spread"]
        ratio = f"{row['ratio']:.1f} ({low:.1f} to {high:.1f}, {len(row['ours_seconds'])} pairs)"
        cells += [_readable(ours), ratio, "–" if floor is None else _readable(floor)]
        lines.append(markdown_row([*cells, place, versions]) + "\n")
    head = markdown_row(COLUMNS) + "\n" + "|---" * len(COLUMNS) + "|\n"
    head = "" if file.exists() and head in file.read_text(encoding="utf-8") else head
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as stream:
        stream.write(head + "".join(lines))


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _readable(duration: float) -> str:
    return f"{duration:.2f} s" if duration >= 1 else f"{duration * 1e3:.2f} ms"
