"""What the terminal shows while a run is under way: a bar with Rel and Loc so far, or a line per checkpoint
where stderr is no terminal."""

from __future__ import annotations

import sys
import time

from tqdm import tqdm


class Progress:
    """Progress of one run, on stderr.

    Args:
        name: of the method.
        total: edits of the stream.
        quiet: show nothing.
    """

    def __init__(self, name: str, total: int, quiet: bool = False):
        self.name, self.total = name, total
        self._lines = not quiet and not sys.stderr.isatty()
        self._quiet = quiet
        self._bar: tqdm | None = None
        self._started, self._first = time.monotonic(), 0

    def begin(self, position: int) -> None:
        """The loop begins, at an edit other than the first where a run goes on."""
        self._started, self._first = time.monotonic(), position
        self._bar = tqdm(
            total=self.total,
            initial=position,
            desc=self.name,
            unit="edit",
            disable=self._quiet or self._lines,
            file=sys.stderr,
            dynamic_ncols=True,
        )

    def show(self, position: int, rel: float | None, loc: float | None, failed: int) -> None:
        """After a batch."""
        if self._bar is not None and not self._bar.disable:
            self._bar.set_postfix_str(_scores(rel, loc, failed), refresh=False)
            self._bar.update(position - self._bar.n)

    def checkpoint(self, position: int, rel: float | None, loc: float | None, failed: int) -> None:
        """After a checkpoint."""
        if not self._lines:
            return
        spent = time.monotonic() - self._started
        left = spent / max(position - self._first, 1) * (self.total - position)
        self.say(
            f"{position}/{self.total} edits, {_scores(rel, loc, failed)}, {tqdm.format_interval(spent)} spent, "
            f"about {tqdm.format_interval(left)} left"
        )

    def say(self, text: str) -> None:
        """A line."""
        if not self._quiet:
            tqdm.write(f"{self.name}: {text}", file=sys.stderr)

    def end(self) -> None:
        """The loop has ended."""
        if self._bar is not None:
            self._bar.close()


def _scores(rel: float | None, loc: float | None, failed: int) -> str:
    parts = [f"{name} {value:.3f}" for name, value in (("Rel", rel), ("Loc", loc)) if value is not None]
    return ", ".join(parts + ([f"{failed} failed"] if failed else []))
