"""Progress of a long computation on stderr: a bar in a terminal, else a line from time to time."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

SECONDS_BEFORE_FIRST = 5.0
SECONDS_BETWEEN = 20.0
_silent = False


@contextmanager
def progress(name: str, total: int, unit: str, done: int = 0) -> Iterator["Progress"]:
    """Show how much of ``total`` is done, and the time left; nothing where it takes a few seconds.

    Shown in scripts and notebooks too, unless ``silenced`` or with tqdm's ``TQDM_DISABLE``.
    """
    shown = Progress(name, total, unit, done)
    try:
        yield shown
    finally:
        shown.close()


@contextmanager
def silenced(silent: bool = True) -> Iterator[None]:
    """Show no progress inside of the block."""
    global _silent
    before, _silent = _silent, _silent or silent
    try:
        yield
    finally:
        _silent = before


def time_left(spent: float, done: int, remaining: int) -> str:
    """The time for what remains, at the pace of what was done in ``spent`` seconds."""
    return tqdm.format_interval(max(spent / max(done, 1) * remaining, 0))


class Progress:
    """See ``progress``."""

    def __init__(self, name: str, total: int, unit: str, done: int = 0):
        self.name, self.total, self.unit = name, total, unit
        self.done, self._first, self._started = done, done, time.monotonic()
        self._next_line = self._started + SECONDS_BEFORE_FIRST
        self._silent = _silent or bool(os.environ.get("TQDM_DISABLE"))
        self._bar: tqdm | None = None
        if sys.stderr.isatty() and not self._silent:
            look = {"desc": name, "unit": unit, "dynamic_ncols": True, "leave": False, "delay": 1}
            self._bar = tqdm(total=total, initial=done, file=sys.stderr, **look)

    def add(self, count: int) -> None:
        """Note that ``count`` more are done."""
        self.done += count
        if self._bar is not None:
            self._bar.update(count)
        elif not self._silent and time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + SECONDS_BETWEEN
            spent = time.monotonic() - self._started
            times = time_left(spent, self.done - self._first, self.total - self.done)
            sys.stderr.write(f"{self.name}: {self.done}/{self.total} {self.unit}s, about {times} left\n")
            sys.stderr.flush()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
