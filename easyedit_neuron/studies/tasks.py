"""Facts by task, and tasks by domain: what neurons may be general to, or specific for.

A task is what a record's ``relation`` (or another field) says, as a subject of MMLU is in NMKE; a domain is
some tasks together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from .. import resources
from ..data.json_records import read_records
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


def facts_by_task(name_or_path: str, field: str = "relation") -> dict[str, list[Fact]]:
    """The facts of a JSON list of records ``{"prompt", "subject", "ground_truth", <field>}``, each subject
    once per task.

    Args:
        name_or_path: a file, or ``tiny-world``: what the world says before its edits.
        field: holds the task's name; where no record has it, all facts are of one task, ``"all"``.

    Raises:
        DataError: no such file, a record that is malformed or lacks the field while others have it.
    """
    if name_or_path in resources.SHIPPED_DATA:
        path = resources.data_dir(name_or_path) / "edits_knowedit.json"
    else:
        path = Path(name_or_path).expanduser()
    records = [Record(path, index, raw) for index, raw in enumerate(read_records(path))]
    named = any(record.has(field) for record in records)
    found: dict[str, dict[str, Fact]] = {}
    for record in records:
        task = record.string(field) if named else "all"
        answer = record.first("ground_truth")
        if answer is None:
            raise record.error("ground_truth", "holds no answer")
        subject = record.string("subject")
        found.setdefault(task, {}).setdefault(subject, Fact(record.string("prompt"), answer, subject, task))
    return {task: list(facts.values()) for task, facts in found.items()}


def sampled(facts: Mapping[str, Sequence[Fact]], sample: int) -> dict[str, list[Fact]]:
    """The facts of each task in another order for every ``sample``; 0: as they are given."""
    generator = torch.Generator().manual_seed(sample)
    return {
        task: [some[at] for at in torch.randperm(len(some), generator=generator).tolist()]
        if sample
        else list(some)
        for task, some in facts.items()
    }


def domains_of(tasks: Sequence[str], given: Sequence[str] = ()) -> dict[str, list[str]]:
    """Domain -> its tasks, of those that there are.

    Args:
        tasks: names of tasks.
        given: ``"NAME=TASK,TASK,..."`` each; without any, tiny-world's relations go by what their subjects
            are, and every other task is of the one domain ``"other"``.

    Raises:
        DataError: a domain that is not written so, a task that there is not, or that is in two domains or in
            none.
    """
    found: dict[str, list[str]] = {}
    if not given:
        for task in tasks:
            found.setdefault(BY_NAME[task].subject if task in BY_NAME else "other", []).append(task)
        return found
    for text in given:
        name, equals, members = text.partition("=")
        if not (name and equals and members):
            raise DataError(f"--domain {text!r} must read NAME=TASK,TASK,...")
        found[name] = members.split(",")
    named = [task for members in found.values() for task in members]
    for task in named:
        if task not in tasks:
            raise DataError(f"--domain names task {task!r}: {did_you_mean(task, list(tasks))}")
    missing = [task for task in tasks if named.count(task) != 1]
    if missing:
        raise DataError(f"every task belongs to one domain; {missing[0]!r} is in {named.count(missing[0])}")
    return found
