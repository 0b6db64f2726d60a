"""Run folders as the report sees them: what :mod:`easyedit_neuron.lifelong` wrote, checked, and named apart.

A run without ``summary.json`` is unfinished: it is read up to where it is. A folder that is not a run, or a
file of one that cannot be read, is a ``DataError`` that names the file.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..lifelong.run_folder import RunFolder, csv_row, mean

LONGEST = 60  # characters of the settings in a label
DEPTH = 3  # folders below a sweep's in which runs are looked for
NAMED_ELSEWHERE = (
    "method_name",
    "output_dir",
    "run",
    "method.alg_name",
    "method.model_name",
    "method.stats_dir",
)


@dataclass(frozen=True)
class Edit:
    """One line of ``edits.jsonl``, as much of it as is shown.

    Attributes:
        position: in the stream.
        text: prompt and new object, for the list of failed edits.
        reason: why it failed; None where it did not.
        seconds: of its batch, divided by the batch's edits.
        immediate, final: teacher-forced rewrite accuracy right after its batch and on the final model; None
            where not measured.
    """

    position: int
    text: str
    reason: str | None
    seconds: float | None
    immediate: float | None
    final: float | None


@dataclass(frozen=True)
class Run:
    """One run folder.

    Attributes:
        folder: where it is.
        about: ``run.json``.
        summary: ``summary.json``; None while the run is unfinished.
        checkpoints: the lines of ``checkpoints.jsonl``, ascending in edits; the one at 0 edits is the
            untouched model.
        rows: the same as rows of ``checkpoints.csv``.
        edits: the lines of ``edits.jsonl``.
        label: a name that no other run of the report has.
    """

    folder: Path
    about: dict[str, Any]
    summary: dict[str, Any] | None
    checkpoints: list[dict[str, Any]]
    rows: list[dict[str, Any]]
    edits: list[Edit] = field(repr=False)
    label: str = ""

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the command."""
        return _mapping(self.about["identity"].get("settings"))

    @property
    def hparams(self) -> dict[str, Any]:
        """The hyperparameters of the method."""
        return _mapping(self.about["identity"].get("hparams"))

    @property
    def method(self) -> str:
        """Name of the method."""
        return str(self.settings.get("method_name") or self.hparams.get("alg_name") or "?")

    @property
    def model(self) -> str:
        """Name or folder of the model."""
        model = _mapping(self.settings.get("model"))
        return str(model.get("path") or model.get("name") or self.hparams.get("model_name") or "?")

    @property
    def data(self) -> str:
        """Name or file of the edits."""
        return str(_mapping(self.settings.get("data")).get("path") or "?")

    @property
    def planned(self) -> int | None:
        """Edits that the run was asked for; None for all of its data."""
        count = self.settings.get("edits")
        return count if isinstance(count, int) else None

    @property
    def done(self) -> int:
        """Edits made so far."""
        return max([len(self.edits), *(row["edits"] for row in self.rows)], default=0)

    @property
    def status(self) -> str:
        """``finished``, or how far the run has come."""
        if self.summary is not None:
            return "finished"
        return f"unfinished: {self.done:,}" + (f" of {self.planned:,}" if self.planned else " edits")

    @property
    def last(self) -> dict[str, Any]:
        """Row of the newest checkpoint with edits; empty before the first."""
        return self.rows[-1] if self.rows and self.rows[-1]["edits"] else {}

    @property
    def untouched(self) -> dict[str, Any]:
        """Row of the untouched model; empty where it is not there."""
        return self.rows[0] if self.rows and not self.rows[0]["edits"] else {}


def read_runs(folders: Sequence[str | Path]) -> list[Run]:
    """All runs in these folders, each a run or a sweep (a folder with runs below), with labels that tell them
    apart.

    Raises:
        DataError: no run in one of them, or a file of a run cannot be read.
    """
    found = {folder.resolve(): folder for given in folders for folder in find_runs(Path(given))}
    if not found:
        raise DataError("no run folders were given")
    runs = [read_run(folder) for folder in found.values()]
    return [dataclasses.replace(run, label=label) for run, label in zip(runs, labels(runs))]


def find_runs(folder: Path) -> list[Path]:
    """The folder itself if it is a run, else the runs below it in natural order; ``DataError`` if there is
    none."""
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder")
    if _is_run(folder):
        return [folder]
    below, found = [folder], []
    for _ in range(DEPTH):
        below = [
            entry for parent in below for entry in sorted(parent.iterdir(), key=_natural) if entry.is_dir()
        ]
        found += [entry for entry in below if _is_run(entry)]
        below = [entry for entry in below if not _is_run(entry)]
    if not found:
        raise DataError(
            f"{folder}: not a run (there is no {folder / 'run.json'}), and no run in the folders below it"
        )
    return sorted(found, key=_natural)


def read_run(folder: Path) -> Run:
    """One run folder; ``DataError`` names the file that is missing or wrong."""
    files = RunFolder(folder)
    about = _object(files.run)
    if not isinstance(about.get("identity"), dict):
        raise DataError(f"{files.run}: not of a run of the lifelong runner ('identity' is missing)")
    summary = _object(files.summary) if files.summary.exists() else None
    finished = summary is not None
    checkpoints = _lines(files.checkpoints, whole=finished)
    rows = []
    for number, checkpoint in enumerate(checkpoints, 1):
        try:
            rows.append({name: _number(value) for name, value in csv_row(checkpoint).items()})
        except (KeyError, TypeError, AttributeError, IndexError) as problem:
            raise DataError(
                f"{files.checkpoints}, line {number}: not a checkpoint of a run ({problem!r})"
            ) from problem
        if not isinstance(rows[-1]["edits"], int) or (number > 1 and rows[-1]["edits"] <= rows[-2]["edits"]):
            raise DataError(
                f"{files.checkpoints}, line {number}: 'edits' must be a number above the line before it"
            )
    if finished and not checkpoints:
        raise DataError(
            f"{files.checkpoints}: empty, although {files.summary.name} says that the run is finished"
        )
    edits = [
        _edit(files.edits, number, line) for number, line in enumerate(_lines(files.edits, whole=finished), 1)
    ]
    return Run(folder, about, summary, checkpoints, rows, edits)


def labels(runs: Sequence[Run]) -> list[str]:
    """Of each run its method; where several have the same, with the settings that part those, and at last the
    folder."""
    names = [run.method for run in runs]
    for name in sorted({name for name in names if names.count(name) > 1}):
        same = [index for index, other in enumerate(names) if other == name]
        for index, told in zip(same, _told_apart([runs[index] for index in same])):
            names[index] = f"{name} {told}".strip()
    names = [_printable(name) for name in names]
    folders = [
        run.folder.name if len({other.folder.name for other in runs}) == len(runs) else str(run.folder)
        for run in runs
    ]
    return [
        name if names.count(name) == 1 else f"{name} ({_printable(folder)})"
        for name, folder in zip(names, folders)
    ]


def differing(runs: Sequence[Run]) -> list[str]:
    """Settings and hyperparameters (``method.<field>``) that not all runs share, without what names
    folders."""
    flat = [_flat(run) for run in runs]
    known = dict.fromkeys(name for values in flat for name in values)
    return [
        name for name in known if len({json.dumps(values.get(name), sort_keys=True) for values in flat}) > 1
    ]


def setting(run: Run, name: str) -> Any:
    """The value of one of :func:`differing`'s names; None where the run has no such field."""
    return _flat(run).get(name)


def _told_apart(runs: Sequence[Run]) -> list[str]:
    """For each run as many settings as part it from the others, those that part most before the rest, the
    method's own first."""
    told = {
        name: [f"{name.removeprefix('method.')}={setting(run, name)}" for run in runs]
        for name in differing(runs)
    }
    texts = [""] * len(runs)
    while told:
        parted = {name: len(set(zip(texts, values))) for name, values in told.items()}
        told = {
            name: values for name, values in told.items() if parted[name] > len(set(texts))
        }  # the others never will again
        if told:
            best = max(
                told, key=lambda name: (name.startswith("method."), parted[name])
            )  # of equals the first
            texts = [f"{text} {value}".strip() for text, value in zip(texts, told[best])]
    return [shortened(text, LONGEST) for text in texts]


def shortened(text: str, length: int) -> str:
    """At most so many characters, the last of them an ellipsis where some were left out."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _flat(run: Run) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in run.settings.items():
        if isinstance(value, dict) and name != "method":
            values.update({f"{name}.{leaf}": item for leaf, item in value.items()})
        elif name != "method":
            values[name] = value
    # The seed and the batch size stand among the settings and among the hyperparameters.
    values.update({f"method.{name}": value for name, value in run.hparams.items() if name not in values})
    return {name: value for name, value in values.items() if name not in NAMED_ELSEWHERE}


def _is_run(folder: Path) -> bool:
    return RunFolder(folder).run.is_file()


def _natural(path: Path) -> list:
    return [
        [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name)]
        for name in path.parts
    ]


def _object(path: Path) -> dict[str, Any]:
    value = _json(path, _text(path), "")
    if not isinstance(value, dict):
        raise DataError(f"{path}: expected a JSON object")
    return value


def _lines(path: Path, whole: bool) -> list[dict[str, Any]]:
    """The objects of a JSON lines file. Of a run that was killed, the file may be missing and its last line
    cut."""
    if not whole and not path.exists():
        return []
    text = _text(path)
    # splitlines() would also cut at the line separators that a prompt may hold.
    *lines, rest = text.split("\n")
    lines += [rest] if rest and whole else []
    found = [_json(path, line, f", line {number}") for number, line in enumerate(lines, 1)]
    for number, value in enumerate(found, 1):
        if not isinstance(value, dict):
            raise DataError(f"{path}, line {number}: expected a JSON object")
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise DataError(
            f"{path}: cannot be read: {getattr(problem, 'strerror', None) or problem}"
        ) from problem


def _json(path: Path, text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as problem:
        raise DataError(f"{path}{place}: not JSON ({problem})") from problem


def _edit(path: Path, number: int, line: dict[str, Any]) -> Edit:
    try:
        request = line["request"]
        return Edit(
            int(line["edit"]),
            f"{request['prompt']} → {request['target_new']}",
            _reason(line),
            _number(line["seconds"]),
            _rewrite(line.get("immediate")),
            _rewrite(line.get("final")),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        raise DataError(f"{path}, line {number}: not an edit of a run ({problem!r})") from problem


def _reason(line: dict[str, Any]) -> str | None:
    return str(line.get("reason") or "no reason given") if line.get("status") == "failed" else None


def _rewrite(metrics: dict[str, Any] | None) -> float | None:
    return mean(_number(value) for value in (metrics or {}).get("rewrite_acc") or [])


def _number(value: Any) -> int | float | None:
    right = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if value is not None and not right:
        raise TypeError(f"{value!r} is not a number")
    return value


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _printable(name: str) -> str:
    return " ".join("".join(sign if sign.isprintable() else " " for sign in name).split()) or "?"
