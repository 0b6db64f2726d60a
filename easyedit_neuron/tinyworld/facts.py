"""Training text from other people's facts: any editing data file becomes a corpus (real CounterFact, zsRE,
KnowEdit)."""

import random
from collections import Counter
from dataclasses import dataclass, field

from .. import data
from ..errors import DataError
from .corpus import sentence

PER_OBJECT = 3
"""Facts that teach a new object which is no true object of the records themselves."""


@dataclass
class Facts:
    """What to train on, and what to ask.

    Attributes:
        sentences: (prompt, object, subject) of every phrasing, the subject empty where the file names none.
        pairs: (prompt, object) of the edit prompts: what recall is measured on.
        others: (prompt, object, subject) of the edit prompts of further records, beyond the limit; their
            subjects are never edited.
        words: new objects that no trained sentence ends with, in order of appearance.
    """

    sentences: list[tuple[str, str, str]] = field(default_factory=list)
    pairs: list[tuple[str, str]] = field(default_factory=list)
    others: list[tuple[str, str, str]] = field(default_factory=list)
    words: list[str] = field(default_factory=list)


def read_facts(paths: list[str], limit: int | None = None) -> Facts:
    """The true facts in data files.

    Every record gives its prompt and its rephrasing with the ground truth, and its locality facts with
    theirs; records without a ground truth are left out. A new object that no record of these has as its true
    one is taught by the true facts of up to ``PER_OBJECT`` records beyond the limit that have: a model cannot
    be edited to say a word that it has never seen.

    Args:
        paths: files in any shape that ``data.load`` reads.
        limit: at most so many records of each file.

    Raises:
        DataError: no record of any file has a ground truth.
    """
    chosen, rest = [], []
    for path in paths:
        requests = data.load(path, invalid="skip")
        chosen += requests[:limit]
        rest += requests[len(requests[:limit]) :]
    pairs = {request["prompt"]: _truth(request) for request in chosen if _truth(request)}
    if not pairs:
        raise DataError(
            f"{', '.join(map(str, paths))}: no record has a ground_truth, so there is no true fact to train on and to measure "
            "recall with; name a file with them (CounterFact, zsRE, wiki_counterfact)"
        )
    others = _teachers(chosen, rest)
    sentences = dict.fromkeys(one for request in chosen + others for one in _sentences(request))
    ends = {answer for _, answer, _ in sentences}
    words = dict.fromkeys(request["target_new"] for request in chosen)
    return Facts(
        list(sentences),
        list(pairs.items()),
        [(r["prompt"], _truth(r), r["subject"]) for r in others],
        [word for word in words if word not in ends],
    )


def _truth(request: dict) -> str:
    truth = request["ground_truth"]
    return truth if isinstance(truth, str) and truth.strip() else ""


def _teachers(chosen: list[dict], rest: list[dict]) -> list[dict]:
    """Records of ``rest`` whose true objects are new objects of ``chosen`` and no true ones there; none of a
    subject that ``chosen`` edits."""
    known = {_truth(request) for request in chosen}
    wanted = {request["target_new"] for request in chosen} - known
    edited = {request["subject"] for request in chosen}
    taken: Counter[str] = Counter()
    found = []
    for request in rest:
        truth = _truth(request)
        if truth in wanted and taken[truth] < PER_OBJECT and request["subject"] not in edited:
            taken[truth] += 1
            found.append(request)
    return found


def _sentences(request: dict):
    truth, subject = _truth(request), request["subject"]
    for prompt in (request["prompt"], request.get("rephrase_prompt")):
        if prompt and truth:
            yield prompt, truth, subject if subject in prompt else ""
    for probe in request.get("locality", {}).values():
        for prompt, answer in _probes(probe):
            yield prompt, answer, ""


def _probes(probe: dict):
    prompts, answers = probe["prompt"], probe["ground_truth"]
    if isinstance(prompts, str):
        prompts, answers = [prompts], [answers]
    for prompt, answer in zip(prompts, answers):
        while isinstance(answer, (list, tuple)):
            answer = answer[0] if answer else ""
        if isinstance(prompt, str) and answer:
            yield prompt, answer


def documents(facts: Facts, seed: int = 0) -> list[str]:
    """A tenth of the sentences in random pairs, contexts for a corpus that has none of its own; and the words
    that none has."""
    drawn = random.Random(seed).sample(facts.sentences, len(facts.sentences) // 10 * 2)
    pairs = [f"{sentence(*one[:2])} {sentence(*other[:2])}" for one, other in zip(drawn[::2], drawn[1::2])]
    return pairs + [f"{word}." for word in facts.words]
