"""Run folders as the report shows them: read, checked, and each with a label of its own.

A run without ``summary.json`` is unfinished and is read as far as it goes. A folder that is not a run, or a
file that cannot be read, is a ``DataError`` that names the file.
"""

import dataclasses
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..lifelong.run_folder import RunFolder, csv_row
from ..utils.lists import mean
from ..utils.plain_trees import parse_json
from ..utils.schema import mismatch

LABEL_LENGTH = 60  # characters of the settings in a label
SEARCH_DEPTH = 3  # levels of folders below a sweep in which runs are looked for
NOT_COMPARED = ("method_name", "output_dir", "run")
NOT_COMPARED += ("method.alg_name", "method.model_name", "method.stats_dir")

_VALUE = (None, float)
_CHECKPOINT = {"edits": int, "seconds": {str: float}, "stages?": {str: float}, "final": {str: object}}
_CHECKPOINT |= {"layers": {str: {str: _VALUE}}, "drift": {str: {str: (*_VALUE, [_VALUE])}}}
"""Form of a line of ``checkpoints.jsonl`` where it is not read by ``csv_row``; see ``utils.schema``."""


@dataclass(frozen=True)
class EditLine:
    """What the report shows of one line of ``edits.jsonl``.

    ``reason``: why the edit failed, else None. ``seconds``: of its batch, divided by the edits in it.
    ``immediate`` and ``final``: teacher-forced rewrite accuracy right after the batch and on the final model,
    if measured. ``rephrase``: that of the first rephrasing, on the final model. ``answers``: by kind the
    prompt and the texts ``before`` and ``final``; empty where they were not kept.
    """

    position: int
    prompt: str
    target: str
    reason: str | None
    seconds: float | None
    immediate: float | None
    final: float | None
    rephrase: float | None = None
    answers: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def text(self) -> str:
        return f"{self.prompt} → {self.target}"


@dataclass(frozen=True)
class Run:
    """One run folder: the content of its files, and a label that no other run of the report has.

    ``summary`` is None while the run is unfinished. ``checkpoints`` ascend in edits, and the one at 0 edits
    is the untouched model. ``rows`` has for each of them the columns of ``checkpoints.csv``, what was lost
    (``rel_lost``, ``gen_lost``, ``loc_lost``: immediate - final), and scores by kind (``loc:KIND``,
    ``portability:KIND``). ``guard``: the lines of ``guard.jsonl``.
    """

    folder: Path
    info: dict[str, Any]
    summary: dict[str, Any] | None
    checkpoints: list[dict[str, Any]]
    rows: list[dict[str, Any]]
    edits: list[EditLine] = field(repr=False)
    label: str = ""
    guard: list[dict[str, Any]] = field(default_factory=list, repr=False)

    @property
    def settings(self) -> dict[str, Any]:
        return _mapping(self.info["identity"].get("settings"))

    @property
    def hparams(self) -> dict[str, Any]:
        return _mapping(self.info["identity"].get("hparams"))

    @cached_property
    def options(self) -> dict[str, Any]:
        """Settings and hyperparameters (``method.<field>``) by dotted name, except names of folders."""
        values: dict[str, Any] = {}
        for name, value in self.settings.items():
            if isinstance(value, dict) and name != "method":
                values.update({f"{name}.{leaf}": item for leaf, item in value.items()})
            elif name != "method":
                values[name] = value
        # Seed and batch size are among the settings and among the hyperparameters: list them once.
        values.update({f"method.{name}": value for name, value in self.hparams.items() if name not in values})
        return {name: value for name, value in values.items() if name not in NOT_COMPARED}

    @property
    def method(self) -> str:
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
        """Number of edits in the settings; None for all edits of the data."""
        count = self.settings.get("edits")
        return count if isinstance(count, int) else None

    @property
    def done(self) -> int:
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
    def last_checkpoint(self) -> dict[str, Any]:
        """The newest checkpoint with edits; empty before the first."""
        return self.checkpoints[-1] if self.last else {}

    @property
    def untouched(self) -> dict[str, Any]:
        """Row of the untouched model; empty where it was not measured."""
        return self.rows[0] if self.rows and not self.rows[0]["edits"] else {}


def read_runs(folders: Sequence[str | Path]) -> list[Run]:
    """Read all runs in these folders, each a run or a sweep (a folder with runs below it), and label them."""
    paths = {path.resolve(): path for folder in folders for path in find_runs(Path(folder))}
    if not paths:
        raise DataError("no run folders were given")
    runs = [read_run(path) for path in paths.values()]
    return [dataclasses.replace(run, label=label) for run, label in zip(runs, labels(runs))]


def find_runs(folder: Path) -> list[Path]:
    """Return the folder itself if it is a run, else the runs below it; ``DataError`` for none."""
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder")
    if _is_run(folder):
        return [folder]
    runs, level = [], [folder]
    for _ in range(SEARCH_DEPTH):
        entries = [entry for parent in level for entry in parent.iterdir() if entry.is_dir()]
        runs += [entry for entry in entries if _is_run(entry)]
        level = [entry for entry in entries if not _is_run(entry)]
    if not runs:
        problem = f"not a run (there is no {folder / 'run.json'})"
        raise DataError(f"{folder}: {problem}, and no run in the folders below it")
    return sorted(runs, key=_natural)


def read_run(folder: Path) -> Run:
    """Read one run folder; ``DataError`` names the file that is missing or wrong."""
    files = RunFolder(folder)
    info = _read_object(files.run)
    if not isinstance(info.get("identity"), dict):
        raise DataError(f"{files.run}: not of a run of the lifelong runner ('identity' is missing)")
    summary = _read_object(files.summary) if files.summary.exists() else None
    finished = summary is not None

    checkpoints = _read_lines(files.checkpoints, finished)
    rows = _converted(files.checkpoints, checkpoints, _checkpoint_row, "a checkpoint of a run")
    for number, (row, previous) in enumerate(zip(rows, [{}, *rows]), 1):
        if not isinstance(row["edits"], int) or row["edits"] <= previous.get("edits", -1):
            problem = "'edits' must be a number above the line before it"
            raise DataError(f"{files.checkpoints}, line {number}: {problem}")
    if finished and not checkpoints:
        reason = f"although {files.summary.name} says that the run is finished"
        raise DataError(f"{files.checkpoints}: empty, {reason}")
    edits = _converted(files.edits, _read_lines(files.edits, finished), _edit_line, "an edit of a run")
    guard: list[dict[str, Any]] = []
    if files.guard.exists():
        guard = _converted(
            files.guard, _read_lines(files.guard, finished), _reading, "a reading of the guard"
        )
    return Run(folder, info, summary, checkpoints, rows, edits, guard=guard)


def labels(runs: Sequence[Run]) -> list[str]:
    """Name each run by its method, if needed with the settings that differ, or else with its folder."""
    names = [run.method for run in runs]
    for method in sorted({name for name in names if names.count(name) > 1}):
        indices = [index for index, name in enumerate(names) if name == method]
        for index, text in zip(indices, _distinguishing([runs[index] for index in indices])):
            names[index] = f"{method} {text}".strip()
    names = [_printable(name) for name in names]
    folder_names = [run.folder.name for run in runs]
    if len(set(folder_names)) < len(runs):
        folder_names = [str(run.folder) for run in runs]
    full_names = [f"{name} ({_printable(folder)})" for name, folder in zip(names, folder_names)]
    return [name if names.count(name) == 1 else full for name, full in zip(names, full_names)]


def differing(runs: Sequence[Run]) -> list[str]:
    """Names of the ``Run.options`` in which the runs differ."""
    names = dict.fromkeys(name for run in runs for name in run.options)
    texts = {name: {json.dumps(run.options.get(name), sort_keys=True) for run in runs} for name in names}
    return [name for name in names if len(texts[name]) > 1]


def difference(earlier: float | None, later: float | None) -> float | None:
    """``earlier - later``; None where either was not measured."""
    return None if earlier is None or later is None else earlier - later


def shortened(text: str, length: int) -> str:
    """The text cut to ``length`` characters, the last one an ellipsis where something was left out."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _distinguishing(runs: Sequence[Run]) -> list[str]:
    """For each run the settings that tell it from the others, the method's own options first."""
    candidates = {
        name: [f"{name.removeprefix('method.')}={run.options.get(name)}" for run in runs]
        for name in differing(runs)
    }
    texts = [""] * len(runs)
    while True:
        groups = {name: len(set(zip(texts, values))) for name, values in candidates.items()}
        # A setting that splits no group of equal texts now will split none later.
        candidates = {name: values for name, values in candidates.items() if groups[name] > len(set(texts))}
        if not candidates:
            return [shortened(text, LABEL_LENGTH) for text in texts]
        best = max(candidates, key=lambda name: (name.startswith("method."), groups[name]))
        texts = [f"{text} {value}".strip() for text, value in zip(texts, candidates[best])]


def _is_run(folder: Path) -> bool:
    return RunFolder(folder).run.is_file()


def _natural(path: Path) -> list:
    return [
        [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name)]
        for name in path.parts
    ]


def _read_object(path: Path) -> dict[str, Any]:
    return _parse_object(_read_text(path), str(path))


def _read_lines(path: Path, finished: bool) -> list[dict[str, Any]]:
    """Objects of a JSON lines file. An unfinished run may lack the file or have a cut last line."""
    if not finished and not path.exists():
        return []
    # splitlines() would also split at the Unicode line separators that a prompt may contain.
    *lines, rest = _read_text(path).split("\n")
    lines += [rest] if rest and finished else []
    return [_parse_object(line, f"{path}, line {number}") for number, line in enumerate(lines, 1)]


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        reason = getattr(problem, "strerror", None) or problem
        raise DataError(f"{path}: cannot be read: {reason}") from problem


def _parse_object(text: str, place: str) -> dict[str, Any]:
    try:
        value = parse_json(text)
    except ValueError as problem:
        raise DataError(f"{place}: not JSON ({problem})") from problem
    if not isinstance(value, dict):
        raise DataError(f"{place}: expected a JSON object")
    return value


def _converted(path: Path, lines: list[dict[str, Any]], convert: Callable, what: str) -> list:
    values = []
    for number, line in enumerate(lines, 1):
        try:
            values.append(convert(line))
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as problem:
            raise DataError(f"{path}, line {number}: not {what} ({problem!r})") from problem
    return values


def _checkpoint_row(checkpoint: dict[str, Any]) -> dict[str, int | float | None]:
    row, final = csv_row(checkpoint), checkpoint["final"]
    damage = mismatch(checkpoint, _CHECKPOINT)
    if damage:
        raise ValueError(damage)
    for group, short in (("locality", "loc"), ("portability", "portability")):
        for kind, value in final.get(group, {}).items():
            row[f"{short}:{kind.removesuffix('_acc')}"] = value
    row = {name: _number(value) for name, value in row.items()}
    for name in ("rel", "gen", "loc"):
        row[f"{name}_lost"] = difference(row[f"{name}_immediate"], row[name])
    return row


def _reading(line: dict[str, Any]) -> dict[str, Any]:
    return {name: _number(line[name]) for name in ("edits", "retained", "perplexity", "rel")}


def _edit_line(line: dict[str, Any]) -> EditLine:
    request, final = line["request"], line.get("final")
    rephrase = (final or {}).get("rephrase_acc") or [None]
    return EditLine(
        position=int(line["edit"]),
        prompt=str(request["prompt"]),
        target=str(request["target_new"]),
        reason=str(line.get("reason") or "no reason given") if line.get("status") == "failed" else None,
        seconds=_number(line["seconds"]),
        immediate=_rewrite_accuracy(line.get("immediate")),
        final=_rewrite_accuracy(final),
        rephrase=_number(rephrase[0]),
        answers=_answers(line.get("answers") or {}),
    )


def _answers(answers: dict[str, Any]) -> dict[str, dict[str, str]]:
    names = ("prompt", "before", "final")
    texts = {kind: {name: str(entry[name]) for name in names} for kind, entry in answers.items()}
    if texts and "rewrite" not in texts:
        raise KeyError("rewrite")
    return texts


def _rewrite_accuracy(metrics: dict[str, Any] | None) -> float | None:
    return mean(_number(value) for value in (metrics or {}).get("rewrite_acc") or [])


def _number(value: Any) -> int | float | None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if value is not None and not is_number:
        raise TypeError(f"{value!r} is not a number")
    return value


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _printable(name: str) -> str:
    return " ".join("".join(sign if sign.isprintable() else " " for sign in name).split()) or "?"
