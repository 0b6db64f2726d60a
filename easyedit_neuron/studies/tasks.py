"""Facts by task (the value of a record's ``relation`` or of another field), and groups of tasks: domains."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .. import resources
from ..data.files import read_records
from ..data.record import Record
from ..errors import DataError
from ..tinyworld.relations import BY_NAME
from ..utils.suggest import did_you_mean


@dataclass(frozen=True)
class Fact:
    """A prompt that the answer continues, its subject and its task."""

    prompt: str
    answer: str
    subject: str
    task: str


def facts_by_task(
    name_or_path: str, field: str = "relation", only: Sequence[str] = ()
) -> dict[str, list[Fact]]:
    """Read facts from a JSON list of records ``{"prompt", "subject", "ground_truth", <field>}``, of
    tiny-world, or from a folder with MMLU, whose subjects are the tasks.

    A subject counts once per task. Where no record has the field, all facts are of one task, ``"all"``.
    ``only``: names of the tasks to read from a folder; by default all. ``DataError`` for a missing file, a
    malformed record, or one without the field while others have it.
    """
    if Path(name_or_path).expanduser().is_dir() and name_or_path not in resources.SHIPPED_DATA:
        return _mmlu(Path(name_or_path).expanduser(), only)
    if name_or_path in resources.SHIPPED_DATA:
        path = resources.data_dir(name_or_path) / "edits_knowedit.json"
    else:
        path = Path(name_or_path).expanduser()
    records = [Record(path, index, raw) for index, raw in enumerate(read_records(path))]
    has_tasks = any(record.has(field) for record in records)
    facts: dict[str, dict[str, Fact]] = {}
    for record in records:
        task = record.string(field) if has_tasks else "all"
        answer = record.first("ground_truth")
        if answer is None:
            raise record.error("ground_truth", "holds no answer")
        subject = record.string("subject")
        fact = Fact(record.string("prompt"), answer, subject, task)
        facts.setdefault(task, {}).setdefault(subject, fact)
    return {task: list(by_subject.values()) for task, by_subject in facts.items()}


def _mmlu(folder: Path, only: Sequence[str]) -> dict[str, list[Fact]]:
    """The test questions of each subject, with the letter of the right choice."""
    from ..ability.local import LETTERS, mmlu_files, mmlu_questions  # needs datasets

    base = next((place for place in (folder / "mmlu" / "test", folder / "test") if place.is_dir()), folder)
    files = mmlu_files(base)
    facts: dict[str, list[Fact]] = {}
    for subject in only or files:
        if subject not in files:
            raise DataError(f"{base}: no file of {subject!r}: {did_you_mean(subject, list(files))}")
        facts[subject] = [
            Fact(_as_prompt(question), LETTERS[question["answer"]], str(number), subject)
            for number, question in enumerate(mmlu_questions(files[subject], subject))
        ]
    return facts


def _as_prompt(question: Mapping[str, Any]) -> str:
    choices = "".join(f"{letter}. {text}\n" for letter, text in zip("ABCD", question["choices"]))
    return f"{question['question'].strip()}\n{choices}Answer:"


def sampled(facts: Mapping[str, Sequence[Fact]], sample: int) -> dict[str, list[Fact]]:
    """The facts of each task in a random order that ``sample`` seeds; 0 keeps the order."""
    if not sample:
        return {task: list(task_facts) for task, task_facts in facts.items()}
    generator = torch.Generator().manual_seed(sample)
    return {
        task: [task_facts[index] for index in torch.randperm(len(task_facts), generator=generator).tolist()]
        for task, task_facts in facts.items()
    }


def domains_of(tasks: Sequence[str], definitions: Sequence[str] = ()) -> dict[str, list[str]]:
    """Group tasks into domains (domain -> its tasks) by definitions, each ``"NAME=TASK,TASK,..."``.

    Without any, tiny-world's relations are grouped by the kind of their subjects, and other tasks are in
    ``"other"``. ``DataError`` for a malformed definition or a task that is not in exactly one domain.
    """
    domains: dict[str, list[str]] = members_of(definitions)
    if not definitions:
        for task in tasks:
            domains.setdefault(BY_NAME[task].subject if task in BY_NAME else "other", []).append(task)
        return domains
    named = [task for members in domains.values() for task in members]
    for task in named:
        if task not in tasks:
            raise DataError(f"--domain names task {task!r}: {did_you_mean(task, list(tasks))}")
    for task in tasks:
        if named.count(task) != 1:
            raise DataError(f"every task belongs to one domain; {task!r} is in {named.count(task)}")
    return domains


def members_of(definitions: Sequence[str]) -> dict[str, list[str]]:
    """Domain -> the tasks that its definition names; ``DataError`` for a malformed one."""
    domains = {}
    for text in definitions:
        name, equals, members = text.partition("=")
        if not (name and equals and members):
            raise DataError(f"--domain {text!r} must read NAME=TASK,TASK,...")
        domains[name] = members.split(",")
    return domains
