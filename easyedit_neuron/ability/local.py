"""Documents of the papers' benchmarks from their upstream files, with the fields that lm-eval's own tasks
read.

The folder::

    mmlu/{test,dev}/SUBJECT_{test,dev}.csv     question, four choices, answer (0-3 or A-D); with a header or
    without gsm8k/{test,train}.jsonl                   {"question", "answer"}; without train.jsonl the shots
    come from test.jsonl commonsenseqa/dev_rand_split.jsonl         {"question": {"stem", "choices":
    [{"label", "text"}]}, "answerKey"} bbh/TASK.json                              {"examples": [{"input",
    "target"}]} humaneval/HumanEval.jsonl.gz (or .jsonl)   {"task_id", "prompt", "entry_point",
    "canonical_solution", "test"}

Every function returns splits by name. What is missing or malformed is a ``DataError`` with file, record and
field.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from datasets import Dataset

from ..errors import DataError

LETTERS = "ABCDE"


def mmlu(folder: str, name: str, **_: Any) -> dict[str, Any]:
    """One subject; the development questions are the shots of those who want any."""
    base = Path(folder) / "mmlu"
    dev = base / "dev" / f"{name}_dev.csv"
    return {
        "test": Dataset.from_list(_questions(base / "test" / f"{name}_test.csv", name)),
        "dev": Dataset.from_list(_questions(dev, name)) if dev.is_file() else [],
    }


def gsm8k(folder: str, **_: Any) -> dict[str, Any]:
    """The test questions, and those that the five shots are drawn from."""
    base = Path(folder) / "gsm8k"
    test = _json_lines(base / "test.jsonl", _word_problem)
    shots = base / "train.jsonl"
    return {"test": test, "train": _json_lines(shots, _word_problem) if shots.is_file() else test}


def commonsense_qa(folder: str, **_: Any) -> dict[str, Any]:
    """The validation questions of the random split, on which the task is measured; the test file has no
    answers."""
    return {
        "validation": _json_lines(Path(folder) / "commonsenseqa" / "dev_rand_split.jsonl", _common_sense),
        "train": [],
    }


def bbh(folder: str, name: str, **_: Any) -> dict[str, Any]:
    """One task."""
    path = Path(folder) / "bbh" / f"{name}.json"
    text = _text(path)
    try:
        examples = json.loads(text)["examples"]
        found = [
            {"input": _string(example, "input"), "target": _string(example, "target")} for example in examples
        ]
    except (ValueError, KeyError, TypeError) as problem:
        shape = '{"examples": [{"input", "target"}]}'
        raise DataError(f"{path}: not a task of BIG-Bench Hard, which is {shape} ({problem!r})") from None
    return {"test": _dataset(path, found)}


def humaneval(folder: str, **_: Any) -> dict[str, Any]:
    """All problems."""
    packed = Path(folder) / "humaneval" / "HumanEval.jsonl.gz"
    plain = packed.with_suffix("")
    fields = ("task_id", "prompt", "entry_point", "canonical_solution", "test")
    return {
        "test": _json_lines(
            plain if plain.is_file() else packed,
            lambda record: {name: _string(record, name) for name in fields},
        )
    }


# -- records
# --------------------------------------------------------------------------------------------------------------


def _questions(path: Path, subject: str) -> list[dict[str, Any]]:
    rows = [row for row in csv.reader(io.StringIO(_text(path), newline="")) if row]
    if rows and rows[0][-1].strip().lower() == "answer":
        rows = rows[1:]
    found = []
    for number, row in enumerate(rows, 1):
        answer = row[-1].strip().upper()
        position = int(answer) if answer.isdecimal() else "ABCD".find(answer) if len(answer) == 1 else -1
        if len(row) != 6 or not 0 <= position < 4:
            raise DataError(
                f"{path}, question {number}: expected question, four choices and an answer 0-3 or A-D, found {row}"
            )
        found.append({"question": row[0], "subject": subject, "choices": row[1:5], "answer": position})
    if not found:
        raise DataError(f"{path}: holds no questions")
    return found


def _word_problem(record: dict[str, Any]) -> dict[str, Any]:
    return {"question": _string(record, "question"), "answer": _string(record, "answer")}


def _common_sense(record: dict[str, Any]) -> dict[str, Any]:
    question, answer = record["question"], _string(record, "answerKey")
    choices = {_string(choice, "label"): _string(choice, "text") for choice in question["choices"]}
    if list(choices) != list(LETTERS) or answer not in choices:
        raise TypeError(f"choices {list(choices)} and answer {answer!r}, not five from A to E")
    return {
        "question": _string(question, "stem"),
        "choices": {"label": list(choices), "text": list(choices.values())},
        "answerKey": answer,
    }


def _json_lines(path: Path, convert: Callable[[dict[str, Any]], dict[str, Any]]) -> Dataset:
    found = []
    for number, line in enumerate(_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            found.append(convert(json.loads(line)))
        except (ValueError, KeyError, TypeError) as problem:
            raise DataError(f"{path}, line {number}: not a record of this benchmark ({problem!r})") from None
    return _dataset(path, found)


def _dataset(path: Path, records: Iterable[dict[str, Any]]) -> Dataset:
    records = list(records)
    if not records:
        raise DataError(f"{path}: holds no records")
    return Dataset.from_list(records)


def _string(record: dict[str, Any], name: str) -> str:
    value = record[name]
    if not isinstance(value, str):
        raise TypeError(f"'{name}' is {type(value).__name__}, not a string")
    return value


def _text(path: Path) -> str:
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        return raw.decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError) as problem:
        reason = getattr(problem, "strerror", None) or problem
        raise DataError(
            f"{path}: cannot be read: {reason}. docs/guides/ability.md shows the folder that is expected"
        ) from None
