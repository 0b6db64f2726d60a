"""Documents of the papers' benchmarks from their upstream files, with the fields that lm-eval's tasks read.

The folder::

    mmlu/{test,dev}/SUBJECT_{test,dev}.csv question, four choices, answer (0-3 or A-D); header optional
    gsm8k/{test,train}.jsonl               {"question", "answer"}; without train.jsonl test.jsonl gives shots
    commonsenseqa/dev_rand_split.jsonl     {"question": {"stem", "choices": [{"label", "text"}]}, "answerKey"}
    bbh/TASK.json                          {"examples": [{"input", "target"}]}
    humaneval/HumanEval.jsonl[.gz]         {"task_id", "prompt", "entry_point", "canonical_solution", "test"}

Every function returns splits by name and raises a ``DataError`` with file, record and field.
"""

import csv
import gzip
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from datasets import Dataset, concatenate_datasets

from ..errors import DataError
from ..utils.plain_trees import parse_json

LETTERS = "ABCDE"
HUMANEVAL_FIELDS = ("task_id", "prompt", "entry_point", "canonical_solution", "test")


def mmlu(folder: str, name: str, **_: Any) -> dict[str, Any]:
    """One subject: the test questions, and the development questions for shots."""
    base = Path(folder) / "mmlu"
    dev = base / "dev" / f"{name}_dev.csv"
    test = mmlu_questions(base / "test" / f"{name}_test.csv", name)
    return {"test": test, "dev": mmlu_questions(dev, name) if dev.is_file() else []}


def mmlu_all(folder: str, **_: Any) -> dict[str, Any]:
    """The test questions of all subjects that have a file, one subject after the other."""
    files = mmlu_files(Path(folder) / "mmlu" / "test")
    subjects = [mmlu_questions(file, subject) for subject, file in files.items()]
    return {"test": concatenate_datasets(subjects)}


def mmlu_files(base: Path) -> dict[str, Path]:
    """Subject -> file of its test questions; ``DataError`` for a folder without any."""
    files = {file.name.removesuffix("_test.csv"): file for file in sorted(base.glob("*_test.csv"))}
    if not files:
        raise DataError(f"{base}: no SUBJECT_test.csv; docs/guides/ability.md shows the folder expected")
    return files


def by_turns(questions: Dataset) -> Dataset:
    """The questions with the subjects taking turns: the first of each, then the second, and so on."""
    turns: dict[str, int] = {}
    order = []
    for number, subject in enumerate(questions["subject"]):
        turns[subject] = turns.get(subject, 0) + 1
        order.append((turns[subject], subject, number))
    return questions.select([number for _, _, number in sorted(order)])


def gsm8k(folder: str, **_: Any) -> dict[str, Any]:
    """The test questions, and those that the five shots are drawn from."""
    base = Path(folder) / "gsm8k"
    test = _json_lines(base / "test.jsonl", _word_problem)
    shots = base / "train.jsonl"
    return {"test": test, "train": _json_lines(shots, _word_problem) if shots.is_file() else test}


def commonsense_qa(folder: str, **_: Any) -> dict[str, Any]:
    """The validation questions of the random split: the test file has no answers."""
    path = Path(folder) / "commonsenseqa" / "dev_rand_split.jsonl"
    return {"validation": _json_lines(path, _commonsense_question), "train": []}


def bbh(folder: str, name: str, **_: Any) -> dict[str, Any]:
    path = Path(folder) / "bbh" / f"{name}.json"
    text = _text(path)
    try:
        examples = parse_json(text)["examples"]
        records = [{key: _string(example, key) for key in ("input", "target")} for example in examples]
    except (ValueError, KeyError, TypeError) as problem:
        shape = '{"examples": [{"input", "target"}]}'
        raise DataError(f"{path}: not a task of BIG-Bench Hard, which is {shape} ({problem!r})") from None
    return {"test": _dataset(path, records)}


def humaneval(folder: str, **_: Any) -> dict[str, Any]:
    packed = Path(folder) / "humaneval" / "HumanEval.jsonl.gz"
    plain = packed.with_suffix("")
    path = plain if plain.is_file() else packed
    return {"test": _json_lines(path, lambda record: {key: _string(record, key) for key in HUMANEVAL_FIELDS})}


def mmlu_questions(path: Path, subject: str) -> Dataset:
    """The questions of a subject's file: ``question``, ``subject``, ``choices``, ``answer`` (0 to 3)."""
    rows = [row for row in csv.reader(io.StringIO(_text(path), newline="")) if row]
    if rows and rows[0][-1].strip().lower() == "answer":
        rows = rows[1:]
    questions = []
    for number, row in enumerate(rows, 1):
        answer = row[-1].strip().upper()
        position = int(answer) if answer.isdecimal() else "ABCD".find(answer) if len(answer) == 1 else -1
        if len(row) != 6 or not 0 <= position < 4:
            expected = "expected question, four choices and an answer 0-3 or A-D"
            raise DataError(f"{path}, question {number}: {expected}: {row}")
        questions.append({"question": row[0], "subject": subject, "choices": row[1:5], "answer": position})
    return _dataset(path, questions)


def _word_problem(record: dict[str, Any]) -> dict[str, Any]:
    return {"question": _string(record, "question"), "answer": _string(record, "answer")}


def _commonsense_question(record: dict[str, Any]) -> dict[str, Any]:
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
    records = []
    for number, line in enumerate(_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            records.append(convert(parse_json(line)))
        except (ValueError, KeyError, TypeError) as problem:
            raise DataError(f"{path}, line {number}: not a record of this benchmark ({problem!r})") from None
    return _dataset(path, records)


def _dataset(path: Path, records: list[dict[str, Any]]) -> Dataset:
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
        raw = path.read_bytes()
        return (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError) as problem:
        reason = getattr(problem, "strerror", None) or problem
        remedy = "docs/guides/ability.md shows the folder expected"
        raise DataError(f"{path}: cannot be read: {reason}; {remedy}") from None
