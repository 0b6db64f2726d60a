"""Edits under one setting of the hyperparameters, and what the model says afterwards."""

import logging
from dataclasses import dataclass, field
from typing import Any

import torch

from ..edits.write import restore
from ..errors import EditError
from ..evaluation import evaluate_all, locality_reference, perplexity, summarize
from ..lifelong.run_folder import mean
from ..locate_then_edit.edit import LocateThenEdit
from ..locate_then_edit.hparams import PathHyperParams
from ..registry import get_method

LOG = logging.getLogger(__name__)
MEASURES = ("edit_success", "generality", "portability", "locality")


@dataclass
class EditBenchmark:
    """Measures the same edits of the same model, which is restored after each, under several settings.

    ``reference`` holds the untouched model's answers to the locality prompts.
    """

    model: torch.nn.Module
    tok: Any
    requests: list[dict]
    texts: list[str] = field(default_factory=list)
    reference: list = field(init=False)

    def __post_init__(self) -> None:
        self.reference = locality_reference(self.model, self.tok, self.requests)

    def measure(self, hparams, sequential: bool) -> dict[str, Any]:
        """Make the edits under ``hparams``, ``batch_size`` at a time, and average over them.

        ``sequential``: batches on top of each other, all edits measured at the end; else every batch on the
        untouched model, measured right after it (EasyEdit's protocol). Returns ``MEASURES`` (0 to 1), the
        ``perplexity`` of ``texts`` after sequential edits, the number of ``failed`` edits (for which the
        unedited model is measured), and means over batches of the numbers in the edits' records.
        """
        apply = get_method(hparams.alg_name).load_apply()
        originals: dict[str, torch.Tensor] = {}
        metrics, records, failed = [], [], 0
        after_all: dict[str, Any] = {}
        try:
            for start in range(0, len(self.requests), hparams.batch_size):
                batch = slice(start, start + hparams.batch_size)
                options = {"return_orig_weights": True, "records": records}
                try:
                    _, weights = apply(self.model, self.tok, self.requests[batch], hparams, **options)
                except EditError as problem:
                    LOG.warning("%s", problem)
                    failed += len(self.requests[batch])
                    weights = {}
                originals = {**weights, **originals}  # the first copy of a weight is the untouched one
                if not sequential:
                    metrics += self._evaluate(batch)
                    restore(self.model, originals)
                    originals = {}
            if sequential:
                metrics = self._evaluate(slice(None))
                if self.texts:
                    after_all["perplexity"] = perplexity(self.model, self.tok, self.texts)
        finally:
            restore(self.model, originals)
        return {**_measures(summarize(metrics)), **after_all, "failed": failed, **_record_means(records)}

    def search_targets(self, hparams) -> None:
        """Search for the z* of every batch on the untouched model, inside of ``shared_targets``.

        Methods without z*, and the rome path, whose z* belong to single requests, need no such search.
        """
        if not isinstance(hparams, PathHyperParams) or hparams.path == "rome":
            return
        for start in range(0, len(self.requests), hparams.batch_size):
            batch = self.requests[start : start + hparams.batch_size]
            edit = LocateThenEdit.begin(hparams.alg_name, self.model, self.tok, batch, hparams)
            with edit.computing():
                edit.compute_z(edit.requests)

    def _evaluate(self, part: slice) -> list[dict]:
        return evaluate_all(self.model, self.tok, self.requests[part], reference=self.reference[part])


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
