"""The facts that IKE keeps, and the prompts that hold them."""

from collections.abc import Callable, Sequence
from typing import Any

from ...arch.tokens import token_ids
from ...arch.vocabulary import positions
from ...data import load
from ...utils.spelling import fact_of, tidied
from .ike_hparams import IKEHyperParams
from .retrieval import Retriever, retrievers

KINDS = ("retain", "update", "retain", "update", "retain", "update", "retain", "copy")
"""What demonstrations show, the one of the nearest record last: IKE's shares of 4, 3 and 1 in eight."""


ROOM_FOR_ANSWERS = 64
"""Tokens of the model's positions that stay free behind a question."""


class Facts:
    """New facts by prompt and subject; a later edit of a fact takes the place of the earlier.

    ``asked`` puts the nearest ones in front of questions, in the form of IKE::

        New Fact: The capital of France is Rome
        Prompt: The capital of France is

    with the nearest fact last, and ``k`` demonstrations of the same form before them. What is farthest is
    left out where a prompt would have more than ``room`` tokens.

    Args:
        hparams: how many facts and demonstrations.
        retriever: makes the one for facts, and the one for demonstrations.
        tok: counts tokens.
        room: None for any number.
    """

    def __init__(self, hparams: IKEHyperParams, retriever: Callable[[], Retriever], tok, room: int | None):
        self.count, self.tok, self.room = hparams.facts, tok, room
        self._retriever = retriever()
        self.by_fact: dict[tuple, str] = {}
        self._demonstrations = Demonstrations(hparams, retriever()) if hparams.demonstrations else None

    @classmethod
    def of(cls, hparams: IKEHyperParams, model, tok) -> "Facts":
        """For a model; ``HparamsError`` where its facts cannot be looked up, or a file is missing."""
        hparams.check_inputs()
        count = positions(model)
        return cls(hparams, retrievers(hparams, model, tok), tok, count and count - ROOM_FOR_ANSWERS)

    def add(self, requests: Sequence[dict[str, Any]]) -> None:
        """Keep the facts of requests."""
        for request in map(tidied, requests):
            self.by_fact.pop(fact_of(request), None)
            self.by_fact[fact_of(request)] = f"{request['prompt']} {request['target_new']}"

    def asked(self, prompts: Sequence[str]) -> list[str]:
        """Each prompt behind the facts nearest to it; as it is before the first edit."""
        texts, prompts = list(self.by_fact.values()), list(prompts)
        if not texts or not prompts:
            return prompts
        nearest = self._retriever.nearest(texts, prompts, self.count)
        before = [[f"New Fact: {texts[i]}\n" for i in reversed(places)] for places in nearest]
        if self._demonstrations:
            shown = self._demonstrations.for_each(prompts, set(self.by_fact))
            before = [[*examples, *facts] for examples, facts in zip(shown, before)]
        return [self._fitting(parts, f"Prompt: {prompt}") for parts, prompt in zip(before, prompts)]

    def _fitting(self, parts: list[str], question: str) -> str:
        while (
            parts
            and self.room is not None
            and len(token_ids(self.tok, "".join(parts) + question)) > self.room
        ):
            parts = parts[1:]
        return "".join(parts) + question


class Demonstrations:
    """Examples of questions behind a new fact, from records that are not edited.

    ``copy`` asks for the fact itself, ``update`` for a rephrasing of it, ``retain`` for a neighbour, whose
    answer stays. A record without rephrasing or neighbour shows a copy.
    """

    def __init__(self, hparams: IKEHyperParams, retriever: Retriever):
        assert hparams.demonstrations is not None
        self.count, self._retriever = hparams.k, retriever
        self._records = load(hparams.demonstrations, invalid="skip")

    def for_each(self, prompts: Sequence[str], edited: set[tuple]) -> list[list[str]]:
        """The examples for each prompt, that of the nearest record last."""
        records = [record for record in self._records if fact_of(record) not in edited]
        texts = [f"{record['prompt']} {record['target_new']}" for record in records]
        if not texts:
            return [[] for _ in prompts]
        nearest = self._retriever.nearest(texts, prompts, self.count)
        return [
            [_example(records[place], KINDS[-1 - rank % len(KINDS)]) for rank, place in enumerate(places)][
                ::-1
            ]
            for places in nearest
        ]


def _example(record: dict[str, Any], kind: str) -> str:
    question, answer = record["prompt"], record["target_new"]
    rephrasing = _first(record.get("rephrase_prompt"))
    if kind == "update" and rephrasing:
        question = rephrasing
    neighbor = next(iter(record.get("locality", {}).values()), None)
    if kind == "retain" and neighbor:
        question, answer = _first(neighbor["prompt"]), _first(neighbor["ground_truth"])
    return f"New Fact: {record['prompt']} {record['target_new']}\nPrompt: {question} {answer}\n\n"


def _first(texts: Any) -> Any:
    return texts[0] if isinstance(texts, (list, tuple)) and texts else texts
