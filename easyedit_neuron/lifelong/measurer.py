"""What a run measures: the edits' own metrics, and the side effects on everything else."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..arch.chat import prompt_tokenizer
from ..evaluation import evaluate_all, fluency, perplexity, summarize
from ..evaluation.batched import pair_accuracies
from ..evaluation.first_token import FirstTokens, first_token_divergence, first_tokens
from ..evaluation.intervals import mean_interval
from ..evaluation.llm_judge import LLMJudge
from ..evaluation.sections import with_prompts
from ..utils.lists import evenly, mean
from .answers import Answers, read_answers
from .run_folder import finite


@dataclass(frozen=True)
class ReferenceData:
    """Facts never edited (``prompt``, ``ground_truth``), held-out texts and prompts to continue."""

    facts: list[dict[str, str]]
    texts: list[str]
    prompts: list[str]


class Measurer:
    """Everything that a run measures: its edits, in the order of the stream, and side effects on
    ``reference``.

    ``ability`` is an ``ability.general_ability.GeneralAbility`` or None. ``known``: of each fact, whether the
    untouched model answers it right; others cannot be retained. ``prompt_tok``: the tokenizer for prompts of
    edits, inside the chat template with ``use_chat_template``; side effects are measured on plain text, and
    locality too unless ``evaluation.locality_in_chat``. ``asked`` puts in front of prompts what the method
    keeps (``Method.asked``); it is set once the untouched model is measured.
    """

    def __init__(
        self,
        tok,
        hparams,
        requests: list[dict],
        reference: ReferenceData,
        settings,
        ability=None,
        judge: LLMJudge | None = None,
    ):
        self.tok, self.hparams, self.requests, self.reference = tok, hparams, requests, reference
        self.prompt_tok = prompt_tokenizer(tok, hparams)
        self.options, self.seed, self.ability = settings.evaluation, settings.seed, ability
        self.judge = judge
        self.prompts = evenly(reference.prompts, self.options.fluency)
        self.asked: Callable[[Sequence[str]], list[str]] = list
        self.knows_fact: list[bool] = []
        self.asked_first = [fact["prompt"] for fact in evenly(reference.facts, self.options.first_token)]
        self._locality_answers: list[dict] = []  # of the untouched model
        self._first_tokens: FirstTokens = []

    def measure_untouched(self, model) -> dict[str, Any]:
        """Measure the untouched model, whose answers every later locality is compared with.

        The content of ``before.json``: ``metrics`` of every edit, ``reference`` answers, ``known`` facts, and
        the side effects' values, ``beside``.
        """
        metrics = self._evaluate(model, self.requests, None)
        self._locality_answers = [
            {name: value for name, value in entry["locality"].items() if name.endswith("_output")}
            for entry in metrics
        ]
        self.knows_fact = self.answers_right(model, self.reference.facts)
        before = {"metrics": [plain_metrics(entry) for entry in metrics]}
        if self.asked_first:
            self._first_tokens = first_tokens(model, self.tok, self.asked_first, self.options.batch_size)
        before |= {"reference": self._locality_answers, "known": self.knows_fact}
        before |= {"first_tokens": self._first_tokens}
        return before | {"beside": finite(self.measure_side_effects(model))}

    def load(self, before: dict[str, Any]) -> None:
        self._locality_answers, self.knows_fact = before["reference"], before["known"]
        self._first_tokens = before["first_tokens"]

    def measure_edits(self, model, positions: Sequence[int], generated: bool = False) -> list[dict]:
        """Metrics of the edits at some positions on the model as it is now; ``generated``: also those that
        the settings ask for without teacher forcing."""
        requests = [self.requests[i] for i in positions]
        answers = [self._locality_answers[i] for i in positions]
        return [plain_metrics(entry) for entry in self._evaluate(model, requests, answers, generated)]

    def read_answers(self, model, positions: Sequence[int]) -> list[Answers]:
        """What the model says, in words, to the prompts of the edits at some positions."""
        requests = [self.requests[i] for i in positions]
        return read_answers(model, self.prompt_tok, requests, self.options.batch_size, self.asked)

    def measure_side_effects(self, model) -> dict[str, Any]:
        """Shares and means on the model as it is now; what the settings leave out is not in it."""
        values: dict[str, Any] = {}
        retained = [fact for fact, is_known in zip(self.reference.facts, self.knows_fact) if is_known]
        if retained:
            values["retained"] = sum(self.answers_right(model, retained)) / len(retained)
            values["retained_facts"] = len(retained)
            values["retained_asked"] = len(self.reference.facts)
        if self.asked_first:
            before, size = self._first_tokens, self.options.batch_size
            values["first_token_kl"] = mean(
                first_token_divergence(model, self.tok, self.asked(self.asked_first), before, size)
            )
        if self.prompts:
            prompts, tokens = self.asked(self.prompts), self.options.fluency_tokens
            entropies = fluency(model, self.tok, prompts, tokens, seed=self.seed)
            values["fluency"] = mean(entropies)
        if self.reference.texts:
            texts = self.reference.texts
            values["perplexity"] = perplexity(model, self.tok, texts, self.options.batch_size)
        return values

    def measure_ability(self, model) -> dict[str, Any]:
        """``{"ability": {task: values}}`` on the model as it is now."""
        return finite({"ability": self.ability.measure(model, self.tok)})

    def ability_due(self, first: int, done: int) -> bool:
        """Whether general ability is measured after the edits ``first`` ... ``done - 1``."""
        checkpoints = self.options.ability_checkpoints
        if self.ability is None or checkpoints is None or done in (0, len(self.requests)):
            return self.ability is not None
        return any(first < checkpoint <= done for checkpoint in checkpoints)

    def answers_right(self, model, facts: list[dict[str, str]]) -> list[bool]:
        """Whether the whole answer to each fact is right, teacher-forced."""
        prompts = self.asked([fact["prompt"] for fact in facts])
        pairs = [(prompt, fact["ground_truth"]) for prompt, fact in zip(prompts, facts)]
        accuracies = pair_accuracies(model, self.tok, pairs, self.options.batch_size)
        return [accuracy == 1.0 for accuracy in accuracies]

    def _evaluate(self, model, requests, reference, generated: bool = False) -> list[dict]:
        options = {"batch_size": self.options.batch_size, "hparams": self.hparams}
        options |= {"locality_in_chat": self.options.locality_in_chat}
        options |= {
            name: generated and getattr(self.options, name) for name in ("exact_match", "whole_answers")
        }
        options["judge"] = self.judge if generated else None
        asked = with_prompts(requests, self.asked)
        return evaluate_all(model, self.tok, asked, reference=reference, **options)


def plain_metrics(metrics: dict) -> dict:
    """The numbers of one request's metrics as plain JSON, without token lists and explanations."""
    groups = ("locality", "portability")
    plain = {name: value for name, value in metrics.items() if name not in (*groups, "metric_meta")}
    for group in groups:
        values = metrics.get(group, {})
        plain[group] = {name: value for name, value in values.items() if name.endswith("_acc")}
    return finite(plain)


def means(metrics: list[dict]) -> dict[str, Any]:
    """Means over edits under EasyEdit's names; every kind of an edit has the same weight in its mean.

    Values that are null do not count (a target without tokens of its own); what no edit has is left out.
    """
    if not metrics:
        return {}
    values = summarize([_with_nan(entry) for entry in metrics])
    for group, name in (("locality", "loc"), ("portability", "port")):
        value = mean(mean_of_kinds(entry[group]) for entry in metrics)
        if value is not None:
            values[name] = value
    return values


def intervals(metrics: list[dict]) -> dict[str, Any]:
    """``[low, high]`` of every mean over edits that ``means`` gives, at the same places: the 95% bootstrap
    interval over the edits."""
    edits = [means([entry]) for entry in metrics]

    def interval(values: list[float | None]) -> list[float] | None:
        bounds = mean_interval(values)
        return None if bounds is None else list(bounds[1:])

    result: dict[str, Any] = {}
    for name, value in means(metrics).items():
        if isinstance(value, dict):
            result[name] = {
                kind: interval([edit.get(name, {}).get(kind) for edit in edits]) for kind in value
            }
        else:
            result[name] = interval([edit.get(name) for edit in edits])
    return result


def kind_means(plain: dict[str, Any]) -> dict[str, float | None]:
    """``locality.KIND`` and ``portability.KIND`` -> mean over the prompts of one edit."""
    return {
        f"{group}.{name.removesuffix('_acc')}": mean(values)
        for group in ("locality", "portability")
        for name, values in plain[group].items()
    }


def mean_of_kinds(kinds: dict[str, list]) -> float | None:
    """Mean over an edit's kinds of locality or portability, each of the same weight."""
    return mean(mean(kind) for kind in kinds.values())


def _with_nan(value: Any) -> Any:
    """``summarize`` leaves out NaN, for which JSON has null."""
    if isinstance(value, dict):
        return {name: _with_nan(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_with_nan(item) for item in value]
    return math.nan if value is None else value
