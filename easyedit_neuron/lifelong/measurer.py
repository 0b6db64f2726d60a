"""What is measured at a checkpoint, and right after an edit."""

from __future__ import annotations

import math
from typing import Any

from ..evaluation import evaluate_all, fluency, perplexity, predict_targets, summarize, token_accuracy
from .run_folder import finite, mean


def evenly(items: list, count: int | None) -> list:
    """At most ``count`` items, spread over the whole list (the shipped files are ordered by subject)."""
    if count is None or count >= len(items):
        return list(items)
    return [items[i * len(items) // count] for i in range(count)]


class Probes:
    """What is measured beside the edits, always on the same facts, prompts and texts.

    Args:
        model, tok: the model that is edited, and its tokenizer.
        facts: of subjects that are never edited, with ``prompt`` and ``ground_truth``.
        texts: held-out text.
        prompts: prompts to be continued.
        options: the settings of the evaluation.
        seed: of the sampled continuations.
        ability: tasks of general ability (``ability.general_ability.GeneralAbility``), or None.
    """

    def __init__(
        self,
        model,
        tok,
        facts: list[dict],
        texts: list[str],
        prompts: list[str],
        options,
        seed: int,
        ability=None,
    ):
        self.model, self.tok, self.facts, self.texts, self.options, self.seed = (
            model,
            tok,
            facts,
            texts,
            options,
            seed,
        )
        self.ability = ability
        self.prompts = evenly(prompts, options.fluency)
        self.known: list[bool] = []

    def begin(self, known: list[bool] | None = None) -> list[bool]:
        """Which facts the untouched model answers right: one that it does not know cannot be retained."""
        self.known = self._right(self.facts) if known is None else known
        return self.known

    def measure(self, model) -> dict[str, Any]:
        """Shares and means on the model as it is now; what was not asked for is left out."""
        found: dict[str, Any] = {}
        self.model = model
        known = [fact for fact, is_known in zip(self.facts, self.known) if is_known]
        if known:
            found["retained"] = sum(self._right(known)) / len(known)
            found["retained_facts"] = len(known)
            found["retained_asked"] = len(self.facts)
        if self.prompts:
            found["fluency"] = mean(
                fluency(model, self.tok, self.prompts, self.options.fluency_tokens, seed=self.seed)
            )
        if self.texts:
            found["perplexity"] = perplexity(model, self.tok, self.texts, self.options.batch_size)
        return found

    def measure_ability(self, model) -> dict[str, Any]:
        """``{"ability": {task: ...}}`` on the model as it is now."""
        return {"ability": self.ability.measure(model, self.tok)}

    def ability_due(self, first: int, done: int, total: int) -> bool:
        """Whether general ability is measured after the batch of the edits ``first`` ... ``done - 1`` (0, 0:
        the untouched model)."""
        chosen = self.options.ability_checkpoints
        return self.ability is not None and (
            chosen is None or done in (0, total) or any(first < count <= done for count in chosen)
        )

    def _right(self, facts: list[dict[str, str]]) -> list[bool]:
        if not facts:
            return []
        prompts = [fact["prompt"] for fact in facts]
        answers = [fact["ground_truth"] for fact in facts]
        predictions = predict_targets(self.model, self.tok, prompts, answers, self.options.batch_size)
        return [accuracy == 1.0 for accuracy in token_accuracy(predictions)]


class Edits:
    """The edits' own metrics, against the untouched model's answers to the locality prompts.

    Args:
        tok, requests, hparams, options: tokenizer, all requests of the stream, hyperparameters, settings of
            the evaluation.
    """

    def __init__(self, tok, requests: list[dict], hparams, options):
        self.tok, self.requests, self.hparams, self.options = tok, requests, hparams, options
        self.reference: list[dict] = []

    def begin(self, model) -> list[dict]:
        """Metrics of every edit on the untouched model, whose answers are the reference from now on."""
        found = self._evaluate(model, self.requests, None)
        self.reference = [
            {name: value for name, value in entry["locality"].items() if name.endswith("_output")}
            for entry in found
        ]
        return [slim(entry) for entry in found]

    def measure(self, model, positions, exact_match: bool = False) -> list[dict]:
        """Metrics of some edits on the model as it is now."""
        found = self._evaluate(
            model, [self.requests[i] for i in positions], [self.reference[i] for i in positions], exact_match
        )
        return [slim(entry) for entry in found]

    def _evaluate(self, model, requests, reference, exact_match: bool = False) -> list[dict]:
        return evaluate_all(
            model,
            self.tok,
            requests,
            reference=reference,
            batch_size=self.options.batch_size,
            hparams=self.hparams,
            exact_match=exact_match,
        )


def slim(metrics: dict) -> dict:
    """The numbers of one request's metrics as plain JSON, without token lists and explanations."""
    kept = {
        name: value
        for name, value in metrics.items()
        if name not in ("locality", "portability", "metric_meta")
    }
    for group in ("locality", "portability"):
        kept[group] = {name: value for name, value in metrics.get(group, {}).items() if name.endswith("_acc")}
    return finite(kept)


def means(metrics: list[dict]) -> dict[str, Any]:
    """Means over edits of the edits' own means: EasyEdit's names, and ``loc`` and ``port``, in which every
    kind of an edit weighs the same.

    Values that are null do not count (a target without tokens of its own); what no edit has is left out.
    """
    if not metrics:
        return {}
    found = summarize([_with_nan(entry) for entry in metrics])
    for group, name in (("locality", "loc"), ("portability", "port")):
        value = mean(mean(mean(values) for values in entry[group].values()) for entry in metrics)
        if value is not None:
            found[name] = value
    return found


def _with_nan(value: Any) -> Any:
    """``summarize`` leaves out NaN, which JSON has not."""
    if isinstance(value, dict):
        return {name: _with_nan(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_with_nan(item) for item in value]
    return math.nan if value is None else value
