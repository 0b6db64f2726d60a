"""One run: measure the untouched model, edit it batch after batch, measure the final model, write everything down."""

from __future__ import annotations

import logging
import shlex
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from .. import data
from ..errors import NeuronEditError
from ..evaluation import evaluate_all, fluency, perplexity, predict_targets, token_accuracy
from ..hparams_base import HyperParams
from ..registry import get_method
from . import report
from .load import check_layers, evenly, load_probes, load_quietly, seed_everything
from .settings import Settings

LOG = logging.getLogger(__name__)


def run(settings: Settings, hparams: HyperParams, source: Path, output_dir: str, overrides: list[str]) -> dict[str, Any]:
    """Edit and measure; writes ``edits.jsonl`` and ``summary.json`` below ``output_dir`` and returns the summary.

    Raises ``NeuronEditError`` before the first edit when data, model and hyperparameters do not fit together.
    """
    clock = Clock()
    method = get_method(settings.method_name)
    if settings.batch_size > 1 and not method.batchable:
        raise NeuronEditError(f"{method.name} edits one request at a time: batch_size=1")
    apply = method.load_apply()
    requests = data.load(settings.data.path, settings.data.shape, settings.edits, settings.data.invalid)
    facts, texts = load_probes(settings)
    seed_everything(settings.seed)
    with clock("load"):
        model, tok = load_quietly(hparams)
    check_layers(model, hparams)
    options = settings.evaluation
    with clock("measure before"):
        before = evaluate_all(model, tok, requests, batch_size=options.batch_size, hparams=hparams)
        probes = Probes(model, tok, facts, texts, requests, settings)
        beside_before = probes.measure()

    lines = []
    steps = range(0, len(requests), settings.batch_size)
    for batch, first in enumerate(tqdm(steps, desc=method.name, unit="batch", disable=None, file=sys.stderr)):
        part = slice(first, first + settings.batch_size)
        records: list = []
        start = time.perf_counter()
        model, _ = apply(model, tok, requests[part], hparams, copy=False, return_orig_weights=False,
                         keep_original_weight=False, records=records)
        seconds = time.perf_counter() - start
        clock.add("edit", seconds)
        measured = [None] * len(requests[part])
        if options.immediate:
            with clock("measure immediately"):
                measured = evaluate_all(model, tok, requests[part], reference=_outputs(before[part]),
                                        batch_size=options.batch_size, hparams=hparams)
        for offset, (request, metrics) in enumerate(zip(requests[part], measured)):
            lines.append(report.edit_line(first + offset, batch, request, before[first + offset], metrics, records,
                                          seconds / len(measured)))
    with clock("measure after"):
        final = evaluate_all(model, tok, requests, reference=_outputs(before), batch_size=options.batch_size, hparams=hparams,
                             exact_match=options.exact_match)
        beside_final = probes.measure()
    for line, metrics in zip(lines, final):
        line["final"] = report.slim(metrics)

    summary = report.summarise(settings, hparams, source, lines, beside_before, beside_final, clock.seconds)
    summary["command"] = shlex.join(["python", "-m", "easyedit_neuron", *overrides])
    paths = report.write(Path(output_dir), lines, summary)
    report.show(report.table(summary) + "".join(f"\n{path}" for path in paths) + "\n")
    return summary


class Probes:
    """What is measured beside the edits, always on the same facts, prompts and texts."""

    def __init__(self, model, tok, facts, texts, requests, settings: Settings):
        self.model, self.tok, self.texts, self.settings = model, tok, texts, settings
        self.prompts = evenly([request["prompt"] for request in requests], settings.evaluation.fluency)
        # A fact that the untouched model does not know cannot be retained.
        self.facts = [fact for fact, known in zip(facts, self._known(facts)) if known]
        self.asked = len(facts)

    def measure(self) -> dict[str, Any]:
        """Shares and means on the model as it is now; what was not asked for is left out."""
        options, found = self.settings.evaluation, {}
        if self.facts:
            found["retained"] = sum(self._known(self.facts)) / len(self.facts)
            found["retained_facts"] = len(self.facts)
            found["retained_asked"] = self.asked
        if self.prompts:
            values = fluency(self.model, self.tok, self.prompts, options.fluency_tokens, seed=self.settings.seed)
            found["fluency"] = sum(values) / len(values)
        if self.texts:
            found["perplexity"] = perplexity(self.model, self.tok, self.texts, options.batch_size)
        return found

    def _known(self, facts: list[dict[str, str]]) -> list[bool]:
        if not facts:
            return []
        prompts = [fact["prompt"] for fact in facts]
        answers = [fact["ground_truth"] for fact in facts]
        predictions = predict_targets(self.model, self.tok, prompts, answers, self.settings.evaluation.batch_size)
        return [accuracy == 1.0 for accuracy in token_accuracy(predictions)]


class Clock:
    """Seconds per named part of the run."""

    def __init__(self):
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str):
        start = time.perf_counter()
        yield
        self.add(name, time.perf_counter() - start)

    def add(self, name: str, seconds: float) -> None:
        """Count some seconds for a part."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds


def _outputs(metrics: list[dict]) -> list[dict]:
    return [{name: value for name, value in entry["locality"].items() if name.endswith("_output")} for entry in metrics]
