"""Training text from other people's facts: any editing data file becomes a corpus (real CounterFact, zsRE, KnowEdit)."""

import random

from .. import data
from ..errors import DataError
from .corpus import sentence


def read_facts(paths: list[str], limit: int | None = None) -> tuple[list[tuple[str, str, str]], list[tuple[str, str]]]:
    """Training facts and recall pairs of the true facts in data files.

    Every record gives its prompt and its rephrasing with the ground truth, and its locality facts with theirs; records
    without a ground truth are left out.

    Args:
        paths: files in any shape that ``data.load`` reads.
        limit: at most so many records of each file.

    Returns:
        ([(prompt, object, subject)] of every phrasing, the subject empty where the file names none; [(prompt, object)] of the edit prompts).

    Raises:
        DataError: no record of any file has a ground truth.
    """
    facts: dict[tuple[str, str, str], None] = {}
    pairs: dict[str, str] = {}
    for path in paths:
        for request in data.load(path, invalid="skip")[:limit]:
            truth = request["ground_truth"]
            if isinstance(truth, str) and truth.strip():
                pairs[request["prompt"]] = truth
                for prompt in (request["prompt"], request.get("rephrase_prompt")):
                    if prompt:
                        facts[prompt, truth, request["subject"] if request["subject"] in prompt else ""] = None
            for probe in request.get("locality", {}).values():
                for prompt, answer in _probes(probe):
                    facts[prompt, answer, ""] = None
    if not pairs:
        raise DataError(f"{', '.join(map(str, paths))}: no record has a ground_truth, so there is no true fact to train on and to measure "
                        "recall with; name a file with them (CounterFact, zsRE, wiki_counterfact)")
    return list(facts), list(pairs.items())


def _probes(probe: dict):
    prompts, answers = probe["prompt"], probe["ground_truth"]
    if isinstance(prompts, str):
        prompts, answers = [prompts], [answers]
    for prompt, answer in zip(prompts, answers):
        while isinstance(answer, (list, tuple)):
            answer = answer[0] if answer else ""
        if isinstance(prompt, str) and answer:
            yield prompt, answer


def documents(facts: list[tuple[str, str, str]], seed: int = 0) -> list[str]:
    """A tenth of the sentences in random pairs: contexts for a corpus that has none of its own."""
    drawn = random.Random(seed).sample(facts, len(facts) // 10 * 2)
    return [f"{sentence(*one[:2])} {sentence(*other[:2])}" for one, other in zip(drawn[::2], drawn[1::2])]
