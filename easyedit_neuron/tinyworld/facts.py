"""Training text from the facts of editing data files: CounterFact, zsRE, KnowEdit or a user's own."""

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from .. import data
from ..errors import DataError
from .corpus import sentence

FACTS_PER_OBJECT = 3
"""Facts that teach a new object which is no true object of the records themselves."""


@dataclass(frozen=True)
class Facts:
    """Sentences to train on, (prompt, object, subject), the subject empty where the file names none.

    ``pairs``: (prompt, object) of the edit prompts, on which recall is measured. ``others``: records beyond
    the limit, whose subjects are never edited. ``words``: new objects that no trained sentence ends with.
    """

    sentences: list[tuple[str, str, str]]
    pairs: list[tuple[str, str]]
    others: list[tuple[str, str, str]]
    words: list[str]


def read_facts(paths: list[str], limit: int | None = None) -> Facts:
    """Read the true facts in data files: prompts, rephrasings and locality facts with their ground truths.

    A model cannot be edited to say a word that it has never seen. So a new object that is nobody's true one
    is taught by up to ``FACTS_PER_OBJECT`` records beyond the ``limit`` of each file. ``DataError`` where no
    record has a ground truth.
    """
    edited, rest = [], []
    for path in paths:
        requests = data.load(path, invalid="skip")
        edited += requests[:limit]
        rest += requests[len(requests[:limit]) :]
    pairs = {request["prompt"]: _truth(request) for request in edited if _truth(request)}
    if not pairs:
        raise DataError(
            f"{', '.join(map(str, paths))}: no record has a ground_truth, so there is no true fact to train "
            "on and to measure recall with; name a file with them (CounterFact, zsRE, wiki_counterfact)"
        )
    others = _records_with_new_objects(edited, rest)
    sentences = dict.fromkeys(fact for request in edited + others for fact in _sentences(request))
    objects = {target for _, target, _ in sentences}
    new_objects = dict.fromkeys(request["target_new"] for request in edited)
    return Facts(
        list(sentences),
        list(pairs.items()),
        [(request["prompt"], _truth(request), request["subject"]) for request in others],
        [word for word in new_objects if word not in objects],
    )


def _truth(request: dict) -> str:
    truth = request["ground_truth"]
    return truth if isinstance(truth, str) and truth.strip() else ""


def _records_with_new_objects(edited: list[dict], rest: list[dict]) -> list[dict]:
    """Records of ``rest``, of unedited subjects, whose true object is only a new object of ``edited``."""
    missing = {request["target_new"] for request in edited} - {_truth(request) for request in edited}
    subjects = {request["subject"] for request in edited}
    taught: Counter[str] = Counter()
    records = []
    for request in rest:
        truth = _truth(request)
        if truth in missing and taught[truth] < FACTS_PER_OBJECT and request["subject"] not in subjects:
            taught[truth] += 1
            records.append(request)
    return records


def _sentences(request: dict) -> Iterator[tuple[str, str, str]]:
    truth, subject = _truth(request), request["subject"]
    for prompt in (request["prompt"], request.get("rephrase_prompt")):
        if prompt and truth:
            yield prompt, truth, subject if subject in prompt else ""
    for probe in request.get("locality", {}).values():
        prompts, answers = probe["prompt"], probe["ground_truth"]
        if isinstance(prompts, str):
            prompts, answers = [prompts], [answers]
        for prompt, answer in zip(prompts, answers):
            while isinstance(answer, (list, tuple)):
                answer = answer[0] if answer else ""
            if isinstance(prompt, str) and answer:
                yield prompt, answer, ""


def documents(facts: Facts, seed: int = 0) -> list[str]:
    """Documents for a corpus without any: a tenth of the sentences in pairs, and new objects without one."""
    facts_drawn = random.Random(seed).sample(facts.sentences, len(facts.sentences) // 10 * 2)
    drawn = [sentence(prompt, target) for prompt, target, _ in facts_drawn]
    pairs = [f"{first} {second}" for first, second in zip(drawn[::2], drawn[1::2])]
    return pairs + [f"{word}." for word in facts.words]
