"""Canaries of a run: a few known facts, passages of text and earlier edits, asked every so many edits."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import NeuronEditError
from ..evaluation import perplexity
from .measurer import Measurer, evenly
from .run_folder import mean

FACTS, TEXTS, EDITS = 50, 10, 50
"""How many of each are asked at most, evenly spread."""


@dataclass(frozen=True)
class Reading:
    """What the canaries say after some edits.

    Attributes:
        edits: number of edits so far.
        retained: share of the facts that the untouched model knew and that are still right.
        perplexity: of the text, divided by the untouched model's.
        rel: mean token accuracy of the earlier edits at their own prompts.
        breaches: the limits that are broken, in words.

    What a run has no data for is None.
    """

    edits: int
    retained: float | None
    perplexity: float | None
    rel: float | None
    breaches: list[str]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class RollBack(NeuronEditError):
    """A limit is broken: the run shall end with its newest saved state, of ``saved`` edits (0: none)."""

    def __init__(self, reading: Reading, saved: int):
        super().__init__(f"after edit {reading.edits}: {'; '.join(reading.breaches)}")
        self.reading, self.saved = reading, saved


class Guard:
    """Compares canaries with limits: ``runner.guard_*`` of the settings.

    ``begin`` measures the untouched model, also where a run continues.
    """

    def __init__(self, measurer: Measurer, runner):
        self.measurer, self.runner = measurer, runner
        self.texts = evenly(measurer.reference.texts, TEXTS)
        self.facts: list[dict[str, str]] = []
        self.before: float | None = None

    @property
    def rolls_back(self) -> bool:
        """Whether only states within the limits may be saved."""
        return self.runner.guard_every is not None and self.runner.guard_action == "roll_back"

    def due(self, first: int, done: int) -> bool:
        """Whether the canaries are asked after the edits ``first`` ... ``done - 1``."""
        every = self.runner.guard_every
        return every is not None and first // every < done // every

    def begin(self, model) -> None:
        if self.runner.guard_every is None:
            return
        facts = zip(self.measurer.reference.facts, self.measurer.knows_fact)
        self.facts = evenly([fact for fact, is_known in facts if is_known], FACTS)
        self.before = self._perplexity(model)

    def read(self, model, edits: int, positions: Sequence[int]) -> Reading:
        """Ask the canaries of the model as it is after so many edits; ``positions`` are those of them whose
        facts still hold."""
        retained = mean(map(float, self.measurer.answers_right(model, self.facts)))
        now = self._perplexity(model)
        ratio = None if now is None or self.before is None else now / self.before
        rel = self.measurer.rel_of(model, evenly(list(positions), EDITS))
        limits = (
            ("known facts", retained, self.runner.guard_retained, False),
            ("perplexity", ratio, self.runner.guard_perplexity, True),
            ("Rel of earlier edits", rel, self.runner.guard_rel, False),
        )
        breaches = [
            f"{name} {value:.3f}, the limit is {limit:g}"
            for name, value, limit, is_upper in limits
            if value is not None and limit is not None and (value > limit if is_upper else value < limit)
        ]
        return Reading(edits, retained, ratio, rel, breaches)

    def _perplexity(self, model) -> float | None:
        size = self.measurer.options.batch_size
        return perplexity(model, self.measurer.tok, self.texts, size) if self.texts else None
