"""Canaries of a sequence of edits: known facts, passages of text and earlier edits, asked every so often."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ..errors import HparamsError, NeuronEditError
from ..utils.lists import evenly, mean
from ..utils.spelling import fact_of
from .batched import pair_accuracies, perplexity

FACTS, TEXTS, EDITS = 50, 10, 50
"""How many of each are asked at most, evenly spread."""
ACTIONS = ("warn", "stop", "roll_back")
Action = Literal["warn", "stop", "roll_back"]


@dataclass(frozen=True)
class Limits:
    """Share of the known facts that must still be right, largest perplexity (over the untouched model's),
    and least token accuracy of earlier edits at their own prompts; None: no limit."""

    retained: float | None = 0.9
    perplexity: float | None = 1.1
    rel: float | None = 0.9


@dataclass(frozen=True)
class Reading:
    """What the canaries say after some edits.

    Attributes:
        edits: number of edits so far.
        retained: share of the facts that the untouched model knew and that are still right.
        perplexity: of the text, divided by the untouched model's.
        rel: mean token accuracy of the earlier edits at their own prompts.
        breaches: the limits that are broken, in words.

    What there is no data for is None.
    """

    edits: int
    retained: float | None
    perplexity: float | None
    rel: float | None
    breaches: list[str]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        return f"after edit {self.edits}: {'; '.join(self.breaches) or 'within the limits'}"


class RollBack(NeuronEditError):
    """A limit is broken: a run shall end with its newest saved state, of ``saved`` edits (0: none)."""

    def __init__(self, reading: Reading, saved: int):
        super().__init__(str(reading))
        self.reading, self.saved = reading, saved


class Guard:
    """Asks canaries every so many edits, and compares what they say with limits.

    Args:
        every: edits between two readings; None: it never asks.
        facts: ``{"prompt": ..., "ground_truth": ...}``; those that the untouched model answers right are
            asked, at most ``FACTS``.
        texts: passages for perplexity; at most ``TEXTS`` are read.
        limits: what must hold.
        action: on a broken limit: ``warn``, ``stop`` there, or ``roll_back`` to the newest edit at which all
            held.
        batch_size: prompts of a forward pass.

    Attributes:
        readings: one for each time that it asked.

    Raises:
        HparamsError: a value out of range.
    """

    def __init__(
        self,
        every: int | None = 100,
        facts: Sequence[dict[str, str]] = (),
        texts: Sequence[str] = (),
        limits: Limits = Limits(),
        action: Action = "warn",
        batch_size: int = 32,
    ):
        if every is not None and every < 1:
            raise HparamsError(f"guard: 'every' must be at least 1, got {every}")
        if action not in ACTIONS:
            raise HparamsError(f"guard: 'action' must be one of {', '.join(ACTIONS)}, got {action!r}")
        self.every, self.facts, self.texts = every, list(facts), evenly(list(texts), TEXTS)
        self.limits, self.action, self.batch_size = limits, action, batch_size
        self.readings: list[Reading] = []
        self._prompt_tok: Any = None
        self._before: float | None = None

    @property
    def rolls_back(self) -> bool:
        """Whether a broken limit takes edits back."""
        return self.every is not None and self.action == "roll_back"

    def due(self, first: int, done: int) -> bool:
        """Whether the canaries are asked after the edits ``first`` ... ``done - 1``."""
        return self.every is not None and first // self.every < done // self.every

    def begin(self, model, tok, prompt_tok=None) -> None:
        """Ask the untouched model: which facts it knows, and its perplexity.

        ``prompt_tok``: the tokenizer for prompts of edits, where it is another (edits inside a chat).
        """
        self.readings, self._prompt_tok = [], prompt_tok
        if self.every is None:
            return
        right = self._right(model, tok, self.facts)
        self.facts = evenly([fact for fact, is_known in zip(self.facts, right) if is_known], FACTS)
        self._before = self._perplexity(model, tok)

    def read(self, model, tok, edits: int, requests: Sequence[dict]) -> Reading:
        """Ask the canaries of the model as it is after the edits ``requests``; of several edits of a fact the
        newest is asked."""
        retained = mean(map(float, self._right(model, tok, self.facts)))
        now, before = self._perplexity(model, tok), self._before
        ratio = None if now is None or before is None else now / before
        newest: dict[tuple, dict] = {}
        for request in requests:
            newest.pop(fact_of(request), None)  # to its place at the end
            newest[fact_of(request)] = request
        asked = [(edit["prompt"], edit["target_new"]) for edit in evenly(list(newest.values()), EDITS)]
        rel = mean(
            value for value in self._accuracies(model, self._prompt_tok or tok, asked) if math.isfinite(value)
        )
        sides = (
            ("known facts", retained, self.limits.retained, False),
            ("perplexity", ratio, self.limits.perplexity, True),
            ("Rel of earlier edits", rel, self.limits.rel, False),
        )
        breaches = [
            f"{name} {value:.3f}, the limit is {limit:g}"
            for name, value, limit, is_upper in sides
            if value is not None and limit is not None and (value > limit if is_upper else value < limit)
        ]
        self.readings.append(Reading(edits, retained, ratio, rel, breaches))
        return self.readings[-1]

    def _right(self, model, tok, facts: Sequence[dict[str, str]]) -> list[bool]:
        pairs = [(fact["prompt"], fact["ground_truth"]) for fact in facts]
        return [accuracy == 1.0 for accuracy in self._accuracies(model, tok, pairs)]

    def _accuracies(self, model, tok, pairs: list[tuple[str, str]]) -> list[float]:
        return pair_accuracies(model, tok, pairs, self.batch_size)

    def _perplexity(self, model, tok) -> float | None:
        return perplexity(model, tok, self.texts, self.batch_size) if self.texts else None
