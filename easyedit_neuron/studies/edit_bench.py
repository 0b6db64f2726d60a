"""Edits under one setting, and what the model says afterwards."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

import torch

from ..edits.write import restore
from ..errors import EditError
from ..evaluation import evaluate_all, locality_reference, perplexity, summarize
from ..registry import get_method

LOG = logging.getLogger(__name__)
MEASURES = ("edit_success", "generality", "portability", "locality")


@dataclass
class Bench:
    """A model, the edits and what is compared with the untouched model; made once, used for every setting.

    Attributes:
        model, tok: the untouched model, which every setting gives back as it was.
        requests: the edits.
        texts: held-out text for the perplexity, measured after sequential edits only; may be empty.
        reference: the untouched model's answers to the locality prompts.
    """

    model: torch.nn.Module
    tok: Any
    requests: list[dict]
    texts: list[str] = field(default_factory=list)
    reference: list = field(init=False)

    def __post_init__(self) -> None:
        self.reference = locality_reference(self.model, self.tok, self.requests)

    def run(self, hparams, sequential: bool) -> dict[str, Any]:
        """Means over the edits under ``hparams``, ``batch_size`` of them at a time.

        Args:
            hparams: of any method that reports what it did in an ``EditRecord``.
            sequential: True: one batch on top of the other, all edits measured at the end; False: every batch
                on the untouched model, measured right after it (EasyEdit's protocol).

        Returns:
            ``MEASURES`` (shares, 0 to 1), ``perplexity`` if texts were given and the edits are sequential,
            ``failed`` edits (an ``EditError``; the unedited model is measured for them), and means over
            batches of the record's numbers.
        """
        apply = get_method(hparams.alg_name).load_apply()
        originals: dict[str, torch.Tensor] = {}
        measured, records, failed = [], [], 0
        try:
            for start in range(0, len(self.requests), hparams.batch_size):
                part = slice(start, start + hparams.batch_size)
                try:
                    _, weights = apply(
                        self.model,
                        self.tok,
                        self.requests[part],
                        hparams,
                        return_orig_weights=True,
                        records=records,
                    )
                except EditError as problem:
                    LOG.warning("%s", problem)
                    failed += len(self.requests[part])
                    weights = {}
                originals = {**weights, **originals}  # the first copy of a weight is the untouched one
                if not sequential:
                    measured += self._evaluate(part)
                    restore(self.model, originals)
                    originals = {}
            found: dict[str, Any] = {}
            if sequential:
                measured = self._evaluate(slice(None))
                if self.texts:
                    found["perplexity"] = perplexity(self.model, self.tok, self.texts)
        finally:
            restore(self.model, originals)
        return {**_means(summarize(measured)), **found, "failed": failed, **_reported(records)}

    def _evaluate(self, part: slice) -> list[dict]:
        return evaluate_all(self.model, self.tok, self.requests[part], reference=self.reference[part])


def _means(summary: dict) -> dict[str, float | None]:
    def mean(values: dict) -> float | None:
        return sum(values.values()) / len(values) if values else None

    return {
        "edit_success": summary.get("rewrite_acc"),
        "generality": summary.get("rephrase_acc"),
        "portability": mean(summary.get("portability", {})),
        "locality": mean(summary.get("locality", {})),
    }


def _reported(records: list) -> dict[str, float]:
    """Means over the records of what each says about itself."""
    columns: dict[str, list[float]] = {}
    for record in records:
        numbers = {name: record.info[name] for name in ("share_moved", "p", "steps") if name in record.info}
        numbers |= {f"seconds_{stage}": seconds for stage, seconds in record.seconds.items()}
        for name, value in numbers.items():
            columns.setdefault(name, []).append(value)
    return {name: sum(values) / len(values) for name, values in columns.items()}
