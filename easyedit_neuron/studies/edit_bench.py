"""Edits under one setting of the hyperparameters, and what the model says afterwards."""

import logging
from dataclasses import dataclass, field
from typing import Any

from ..errors import EditError
from ..evaluation import locality_reference, summarize
from ..locate_then_edit.edit import LocateThenEdit
from ..locate_then_edit.hparams import PathHyperParams
from ..utils.lists import mean
from .untouched import Untouched

LOG = logging.getLogger(__name__)
MEASURES = ("edit_success", "generality", "portability", "locality")


@dataclass
class EditBenchmark:
    """Measures the same edits of the same model, which is restored after each, under several settings.

    ``fluency_tokens``: how many the model writes behind each edited prompt; 0: none. ``reference`` holds the
    untouched model's answers to the locality prompts.
    """

    subject: Untouched
    requests: list[dict]
    texts: list[str] = field(default_factory=list)
    fluency_tokens: int = 0
    reference: list = field(init=False)

    def __post_init__(self) -> None:
        self.reference = locality_reference(self.subject.model, self.subject.tok, self.requests)

    def measure(self, hparams, sequential: bool) -> dict[str, Any]:
        """Make the edits under ``hparams``, ``batch_size`` at a time, and average over them.

        ``sequential``: batches on top of each other, all edits measured at the end; else every batch on the
        untouched model, measured right after it (EasyEdit's protocol). Returns ``MEASURES`` (0 to 1), the
        ``perplexity`` of ``texts`` after sequential edits, the number of ``failed`` edits (for which the
        unedited model is measured), means over batches of the numbers in the edits' records, and with
        ``fluency_tokens`` the ``fluency`` (bits).
        """
        metrics, records, failed = [], [], 0
        entropies: list[float | None] = []
        after_all: dict[str, Any] = {}
        size = getattr(hparams, "batch_size", 1)
        try:
            for start in range(0, len(self.requests), size):
                batch = slice(start, start + size)
                try:
                    self.subject.edit(self.requests[batch], hparams, records)
                except EditError as problem:
                    LOG.warning("%s", problem)
                    failed += len(self.requests[batch])
                if not sequential:
                    metrics += self._evaluate(batch, hparams)
                    entropies.append(self._fluency(batch))
                    self.subject.restore()
            if sequential:
                metrics = self._evaluate(slice(None), hparams)
                entropies.append(self._fluency(slice(None)))
                if self.texts:
                    after_all["perplexity"] = self.subject.perplexity(self.texts)
        finally:
            self.subject.restore()
        if self.fluency_tokens:
            after_all["fluency"] = mean(entropies)
        return {**_measures(summarize(metrics)), **after_all, "failed": failed, **_record_means(records)}

    def search_targets(self, hparams) -> None:
        """Search for the z* of every batch on the untouched model, inside of ``shared_targets``.

        Methods without z*, and the rome path, whose z* belong to single requests, need no such search.
        """
        if not isinstance(hparams, PathHyperParams) or hparams.path == "rome":
            return
        for start in range(0, len(self.requests), hparams.batch_size):
            batch = self.requests[start : start + hparams.batch_size]
            model, tok = self.subject.model, self.subject.tok
            edit = LocateThenEdit.begin(hparams.alg_name, model, tok, batch, hparams)
            with edit.computing():
                edit.compute_z(edit.requests)

    def _fluency(self, part: slice) -> float | None:
        prompts = [request["prompt"] for request in self.requests[part]]
        return self.subject.fluency(prompts, self.fluency_tokens) if self.fluency_tokens else None

    def _evaluate(self, part: slice, hparams) -> list[dict]:
        return self.subject.evaluate(self.requests[part], self.reference[part], hparams=hparams)


def _measures(summary: dict) -> dict[str, float | None]:
    measures = {"edit_success": summary.get("rewrite_acc"), "generality": summary.get("rephrase_acc")}
    groups = ("portability", "locality")
    return measures | {group: mean(summary.get(group, {}).values()) for group in groups}


def _record_means(records: list) -> dict[str, float]:
    columns: dict[str, list[float]] = {}
    for record in records:
        numbers = {name: record.info[name] for name in ("share_moved", "p", "steps") if name in record.info}
        numbers |= {f"seconds_{stage}": seconds for stage, seconds in record.seconds.items()}
        for name, value in numbers.items():
            columns.setdefault(name, []).append(value)
    return {name: mean(values) for name, values in columns.items()}
