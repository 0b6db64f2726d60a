"""What a run shows on stderr: a bar with Rel and Loc, or a line per checkpoint outside of a terminal."""

import sys
import time

from tqdm import tqdm

from ..utils.progress import time_left


class Progress:
    """Progress of one run, on stderr."""

    def __init__(self, name: str, total: int, quiet: bool = False):
        self.name, self.total, self.quiet = name, total, quiet
        self._shows_bar = not quiet and sys.stderr.isatty()
        self._bar: tqdm | None = None
        self._started, self._first = time.monotonic(), 0

    def begin(self, position: int) -> None:
        """Begin at an edit, which is not the first where a run continues."""
        self._started, self._first = time.monotonic(), position
        if self._shows_bar:
            look = {"desc": self.name, "unit": "edit", "dynamic_ncols": True}
            self._bar = tqdm(total=self.total, initial=position, file=sys.stderr, **look)

    def show(self, position: int, rel: float | None, loc: float | None, failed: int) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(_scores(rel, loc, failed), refresh=False)
            self._bar.update(position - self._bar.n)

    def show_checkpoint(self, position: int, rel: float | None, loc: float | None, failed: int) -> None:
        """Write a line after a checkpoint, unless there is a bar."""
        if self._shows_bar:
            return
        spent = time.monotonic() - self._started
        left = time_left(spent, position - self._first, self.total - position)
        times = f"{tqdm.format_interval(spent)} spent, about {left} left"
        self.say(f"{position}/{self.total} edits, {_scores(rel, loc, failed)}, {times}")

    def say(self, text: str) -> None:
        if not self.quiet:
            tqdm.write(f"{self.name}: {text}", file=sys.stderr)

    def end(self) -> None:
        if self._bar is not None:
            self._bar.close()


def _scores(rel: float | None, loc: float | None, failed: int) -> str:
    parts = [f"{name} {value:.3f}" for name, value in (("Rel", rel), ("Loc", loc)) if value is not None]
    return ", ".join(parts + ([f"{failed} failed"] if failed else []))
