"""One way to try damaged inputs: each ends in success or in a clear error of ours, and nothing else changes.

A kind of input is a function ``attempt(number, chance) -> Trial``. Numbers and seeds are printed with every
problem, so that one input can be tried again alone.
"""

import contextlib
import hashlib
import io
import os
import random
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from easyedit_neuron.errors import NeuronEditError
from helpers.long import IS_LONG

SECONDS = 20
"""No input may take longer; far above what any takes, this is no benchmark."""
LONGEST_MESSAGE = 3000
SEED = os.environ.get("FUZZ_SEED", "0")
SHORTENED = 12
"""A bounded run tries one in so many inputs."""


@dataclass
class Trial:
    """One damaged input.

    Attributes:
        call: hands the input to the package.
        unchanged: what is the same after an error as before it (weights, files), as a comparable value.
        around: what is the same in any case (files outside of the target folder).
        what: describes the input, for a message.
    """

    call: Callable[[], Any]
    unchanged: Callable[[], Any] = lambda: None
    around: Callable[[], Any] = lambda: None
    what: str = ""


@dataclass
class Tally:
    """How the inputs of a kind have ended."""

    kind: str
    errors: int = 0
    successes: int = 0
    slowest: float = 0.0
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        count = self.errors + self.successes + len(self.problems)
        counts = f"{self.errors} errors of ours, {self.successes} successes, {len(self.problems)} problems"
        return f"{self.kind:16} {count:5} inputs: {counts}; the slowest took {self.slowest:.2f} s"


def fuzz(kind: str, count: int, attempt: Callable[[int, random.Random], Trial]) -> Tally:
    """Try inputs of a kind, ``count`` of them or a share in a bounded run; prints how they end."""
    tally = Tally(kind)
    only = os.environ.get("FUZZ_ONLY")  # the number of one input, to look into it
    numbers = range(count if IS_LONG else max(count // SHORTENED, 10)) if only is None else [int(only)]
    for number in numbers:
        _try(tally, attempt(number, random.Random(f"{kind} {SEED} {number}")), number)
    print(f"\n{tally}", end="")
    return tally


def _try(tally: Tally, trial: Trial, number: int) -> None:
    label = f"{tally.kind} {number} ({trial.what[:300]!r})"
    before, around = trial.unchanged(), trial.around()
    started, error = time.monotonic(), None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trial.call()
    except NeuronEditError as problem:
        error = str(problem)
    except Exception as problem:
        last = traceback.extract_tb(problem.__traceback__)[-4:]
        place = " <- ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in last[::-1])
        tally.problems.append(f"{label}: {type(problem).__name__}: {str(problem)[:300]!r} at {place}")
        return
    seconds = time.monotonic() - started
    tally.slowest = max(tally.slowest, seconds)
    complaint = None
    if seconds > SECONDS:
        complaint = f"took {seconds:.1f} s"
    elif error is not None and ("\n" in error.strip() or not error.strip() or len(error) > LONGEST_MESSAGE):
        complaint = f"no message of one line: {error[:400]!r} ({len(error)} characters)"
    elif error is not None and trial.unchanged() != before:
        complaint = f"something was changed although there was an error: {error[:200]!r}"
    elif trial.around() != around:
        complaint = "something outside of the target was changed"
    if complaint is not None:
        tally.problems.append(f"{label}: {complaint}")
    elif error is None:
        tally.successes += 1
    else:
        tally.errors += 1


def files_below(folder: Path, *left_out: Path) -> dict[str, str]:
    """Path -> digest (or what else it is), of everything below a folder but what is in ``left_out``."""
    content = {}
    for path in sorted(folder.rglob("*")):
        if any(path == other or other in path.parents for other in left_out):
            continue
        is_file = path.is_file() and not path.is_symlink()
        content[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest() if is_file else "folder or link"
    return content


def command(main: Callable[[list[str]], Any], arguments: list[str]) -> None:
    """Run a command in this process: exit code 0 is success, 2 with one line an error of ours."""
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(arguments)
    except SystemExit as stop:
        code = stop.code
    lines = [line for line in err.getvalue().splitlines() if line.strip()]
    if code in (0, None):
        return
    if code != 2 or not lines or "Traceback" in err.getvalue():
        raise AssertionError(f"exit code {code}: {err.getvalue()[-300:]}")
    is_usage = lines[0].startswith("usage:")
    raise NeuronEditError(lines[-1] if is_usage or len(lines) == 1 else err.getvalue())
