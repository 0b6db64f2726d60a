"""The built-in editor: EasyEdit's ``BaseEditor`` calls, arguments and return values without EasyEdit.

Unlike EasyEdit's it writes no ``./logs`` folder, changes no tokenizer, seeds no global generator, chooses
nothing by substrings of the model's path, and checks every request before the first weight is changed. It
offers the methods of ``easyedit_neuron.registry``.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from tqdm import tqdm

from .. import registry
from ..arch.load_model import load_model
from ..errors import EditError, HostError, HparamsError, NeuronEditError, RequestError
from ..evaluation.fluency import generation_entropy
from ..evaluation.guard import Guard
from ..evaluation.protocol import evaluate_all, finalize_locality, summarize
from ..evaluation.quality import FLUENCY_TOKENS, check_evaluation_type, compute_edit_quality
from ..evaluation.sections import sections
from ..utils.io import refusing
from ..utils.shown import shown
from .checks import (
    check_batchable,
    check_count,
    check_hparams,
    check_kind,
    check_requests,
    check_single,
    warn_of_single_edits,
)
from .generation import generate_answers
from .guarding import GuardedSequence
from .prepare import Texts, prepare_requests

LOG = logging.getLogger(__name__)

Result = tuple[list[dict], torch.nn.Module, dict[str, torch.Tensor]]

_MEANINGLESS = frozenset({"train_ds", "keep_original_weight", "summary_metrics"})
"""Keyword arguments of EasyEdit's editors that mean nothing to our methods."""

_OPTIONS = {
    "edit_requests": {
        *("test_generation", "eval_metric", "pre_edit", "pre_file", "final_evaluation", "guard", "on_error")
    },
    "batch_edit": {"test_generation", "final_evaluation", "guard", "on_error"},
    "normal_edit": set(),
    "generate_edit": {
        *("test_generation", "eval_metric", "pre_edit", "pre_file", "max_new_tokens", "on_error")
    },
}
"""Keyword arguments that each call reads besides ``records``; for others it logs a warning."""


@dataclass(frozen=True)
class CallOptions:
    """Keyword arguments of an editor's call; see ``BaseEditor.edit_requests`` and ``generate_edit``."""

    call: str
    sequential_edit: bool
    verbose: bool = False
    test_generation: bool = False
    eval_metric: str = "exact match"
    pre_edit: Sequence[dict] | None = None
    pre_file: str | Path | None = None
    final_evaluation: bool = False
    records: list | None = None
    max_new_tokens: int = 512
    guard: Guard | None = None
    on_error: str = "stop"

    @classmethod
    def read(cls, call: str, sequential_edit: bool, verbose: bool, kwargs: dict[str, Any]) -> "CallOptions":
        if kwargs.get("metric_kwargs") is not None:
            raise HostError("metric_kwargs (sentence metrics) needs EasyEdit's BaseEditor: host='easyedit'")
        names = _OPTIONS[call] | {"records"}
        unknown = sorted(set(kwargs) - names - _MEANINGLESS - {"metric_kwargs"})
        if unknown:
            LOG.warning("ignored keyword arguments: %s", ", ".join(unknown))
        options = cls(call, sequential_edit, verbose, **{n: kwargs[n] for n in names if n in kwargs})
        check_count("max_new_tokens", options.max_new_tokens)
        check_kind("records", options.records, list)
        check_kind("guard", options.guard, Guard)
        check_kind("pre_edit", options.pre_edit, (list, tuple))
        check_kind("pre_file", options.pre_file, (str, Path))
        check_kind("final_evaluation", options.final_evaluation, bool)
        check_kind("sequential_edit", sequential_edit, (bool, int))
        check_kind("on_error", options.on_error, str)
        if options.on_error not in ("stop", "skip"):
            raise HostError(f"on_error must be 'stop' or 'skip', not {shown(options.on_error)}")
        warn_of_single_edits(sequential_edit)
        if options.final_evaluation and not sequential_edit:
            raise HostError("final_evaluation measures the final model; it needs sequential_edit=True")
        if options.guard is not None and not sequential_edit:
            raise HostError("a guard looks after edits that stay; it needs sequential_edit=True")
        return options


class BaseEditor:
    """Edits one model, in place, with one method; the attributes are those of EasyEdit's."""

    @classmethod
    def from_hparams(cls, hparams) -> "BaseEditor":
        """The editor for a hyperparameter object, which names the method, the model and the device."""
        return cls(hparams)

    def __init__(self, hparams):
        for name in ("alg_name", "model_name"):
            if not hasattr(hparams, name):
                raise HparamsError(
                    f"field '{name}' is missing from hparams, an object of type {type(hparams).__name__}; "
                    "make it with <Method>HyperParams.from_hparams(path)"
                )
        check_evaluation_type(hparams)
        self.hparams, self.alg_name, self.model_name = hparams, hparams.alg_name, hparams.model_name
        self.method = registry.get_method(self.alg_name)
        self.apply_algo = self.method.load_apply()
        check_hparams(hparams)
        self.model, self.tok, self.device = load_model(hparams)

    def edit(
        self,
        prompts: Texts | None = None,
        target_new: Texts | None = None,
        ground_truth: Texts | None = None,
        target_neg: Texts | None = None,
        rephrase_prompts: Texts | None = None,
        locality_inputs: dict | None = None,
        portability_inputs: dict | None = None,
        sequential_edit: bool = False,
        verbose: bool = True,
        **kwargs,
    ) -> Result:
        """Edit facts one at a time, each measured before all edits and right after its own.

        Args:
            prompts ... portability_inputs: see ``prepare.prepare_requests``, with ``subject`` and
                ``loc_prompts`` as keywords.
            sequential_edit: keep every edit; else the weights are put back, bit for bit, after each.
            verbose: progress bar, and a log line per edit.
            **kwargs: ``requests`` (ready dictionaries in place of prompts; EasyEdit fails on it) and those of
                ``edit_requests``, which says what is returned.
        """
        texts = prompts, target_new, ground_truth, target_neg, rephrase_prompts
        requests = _take_requests(kwargs, *texts, locality_inputs, portability_inputs)
        return self.edit_requests(requests, sequential_edit, verbose, **kwargs)

    def edit_requests(
        self,
        requests: Sequence[dict],
        sequential_edit: bool = False,
        verbose: bool = True,
        test_generation: bool = False,
        **kwargs,
    ) -> Result:
        """Edit ready request dictionaries one at a time, as ``edit`` does.

        Args:
            requests: dictionaries as ``prepare.prepare_requests`` makes them.
            test_generation: also measure fluency.
            **kwargs: ``eval_metric`` ("ppl", "ood_ppl"; anything else is token accuracy), ``pre_edit``
                (metrics with "pre" from an earlier run, not measured again), ``pre_file`` (where the "pre"
                metrics are written as JSON), ``final_evaluation`` (after the last sequential edit every
                request is measured on the final model, under ``metrics[i]["final"]``), ``records`` (a list to
                which the method appends its edit records), ``guard`` (an ``evaluation.guard.Guard`` that asks
                canaries between sequential edits; where it stops or rolls back, the metrics are those of the
                edits that stay), ``on_error`` ("skip": an edit that fails leaves the model as it is, its
                metrics are measured all the same and have the reason under ``failed``, and the next edit
                follows; "stop", the default: its error ends the call).

        Returns:
            ``metrics``: per request ``pre``, ``case_id``, ``requested_rewrite``, ``post`` (and ``final``);
            the model (put back unless sequential); ``weights_copy``: {parameter name: weights before the
            last edit}.

        Raises:
            RequestError, HparamsError: before any weight is changed.
        """
        kwargs["test_generation"] = test_generation
        options = CallOptions.read("edit_requests", sequential_edit, verbose, kwargs)
        return self._edit_one_by_one(requests, options)

    def batch_edit(
        self,
        prompts: list[str] | None = None,
        target_new: list[str] | None = None,
        ground_truth: list[str] | None = None,
        target_neg: list[str] | None = None,
        rephrase_prompts: list[str] | None = None,
        locality_inputs: dict | None = None,
        portability_inputs: dict | None = None,
        sequential_edit: bool = False,
        verbose: bool = True,
        **kwargs,
    ) -> Result:
        """Edit ``hparams.batch_size`` facts at once, chunk after chunk; arguments and results as ``edit``.

        Metrics also have ``time`` (seconds of the chunk's edit); ``case_id`` counts within the chunk.
        """
        texts = prompts, target_new, ground_truth, target_neg, rephrase_prompts
        requests = _take_requests(kwargs, *texts, locality_inputs, portability_inputs)
        options = CallOptions.read("batch_edit", sequential_edit, verbose, kwargs)
        batch_size = check_batchable(self.method, self.hparams)
        requests = self._checked(requests)
        metrics: list[dict] = []
        watched = GuardedSequence(options.guard, self.model, self.tok, options.records, self.hparams)
        for start in tqdm(range(0, len(requests), batch_size), disable=not verbose, desc=self.alg_name):
            chunk = requests[start : start + batch_size]
            pre_metrics = self._measure(self.model, chunk, options)
            start_time = perf_counter()
            edited, weights_copy, failed = self._tried(chunk, options)
            seconds = perf_counter() - start_time
            post_metrics = self._measure(edited, chunk, options)
            if not sequential_edit:
                self._restore(weights_copy)
            for i, (request, pre, post) in enumerate(zip(chunk, pre_metrics, post_metrics)):
                finalize_locality(pre, post)
                metric = dict(case_id=i, requested_rewrite=request, pre=pre, time=seconds, post=post)
                metric |= failed
                metrics.append(metric)
                self._log_edit(metric, options)
            if watched.ends(edited, start, requests[: len(metrics)], weights_copy):
                break
        metrics, weights_copy = watched.staying(metrics, weights_copy)
        self._finish(metrics, edited, options)
        return metrics, edited, weights_copy

    def normal_edit(
        self, prompts: list[str], target_new: list[str], sequential_edit: bool = False, **kwargs
    ) -> tuple[None, torch.nn.Module, dict[str, torch.Tensor]]:
        """Make all edits in one call, without measuring, and put the weights back, as EasyEdit does.

        ``subject`` may be given as a keyword. Returns ``(None, model, weights_copy)``.
        """
        requests = _take_requests(kwargs, prompts, target_new)
        options = CallOptions.read("normal_edit", sequential_edit, False, kwargs)
        check_batchable(self.method, self.hparams)
        requests = self._checked(requests)
        edited, weights_copy = self._apply(requests, options, keep_original_weight=False)
        self._restore(weights_copy)
        return None, edited, weights_copy

    def generate_edit(
        self,
        prompts: Texts | None = None,
        target_new: Texts | None = None,
        ground_truth: Texts | None = None,
        target_neg: Texts | None = None,
        rephrase_prompts: Texts | None = None,
        locality_inputs: dict | None = None,
        portability_inputs: dict | None = None,
        sequential_edit: bool = False,
        verbose: bool = True,
        **kwargs,
    ) -> Result:
        """As ``edit``, with the model's free answers before and after in place of accuracies.

        The answers are those of ``generation.generate_answers``. Further keywords: ``test_generation``,
        ``pre_edit``, ``pre_file``, ``max_new_tokens`` (512).
        """
        texts = prompts, target_new, ground_truth, target_neg, rephrase_prompts
        requests = _take_requests(kwargs, *texts, locality_inputs, portability_inputs)
        options = CallOptions.read("generate_edit", sequential_edit, verbose, kwargs)
        return self._edit_one_by_one(requests, options)

    def _edit_one_by_one(self, requests: Sequence[dict], options: CallOptions) -> Result:
        check_single(self.hparams)
        requests = self._checked(requests)
        metrics = self._pre_metrics(requests, options)
        watched = GuardedSequence(options.guard, self.model, self.tok, options.records, self.hparams)
        for i, request in enumerate(tqdm(requests, disable=not options.verbose, desc=self.alg_name)):
            further = {"train_ds": None, "keep_original_weight": False}
            edited, weights_copy, failed = self._tried([request], options, **further)
            (post,) = self._measure(edited, [request], options)
            if options.call != "generate_edit":
                finalize_locality(metrics[i]["pre"], post)
            elif options.test_generation:
                entropy = generation_entropy(edited, self.tok, [request["prompt"]], FLUENCY_TOKENS)
                post["fluency"] = {"ngram_entropy": entropy}
            metrics[i].update(case_id=i, requested_rewrite=request, post=post, **failed)
            if not options.sequential_edit:
                self._restore(weights_copy)
            self._log_edit(metrics[i], options)
            if watched.ends(edited, i, requests[: i + 1], weights_copy):
                break
        metrics, weights_copy = watched.staying(metrics, weights_copy)
        self._finish(metrics, edited, options)
        return metrics, edited, weights_copy

    def _checked(self, requests: Sequence[dict]) -> list[dict]:
        requests = check_requests(self.hparams, requests, self.model, self.tok)
        sections(requests)  # an error where the evaluation could not read a request
        return requests

    def _pre_metrics(self, requests: Sequence[dict], options: CallOptions) -> list[dict]:
        """{"pre": metrics} of each request: given by the caller, or measured and written to ``pre_file``."""
        if options.pre_edit is not None:
            metrics = [dict(metric) if isinstance(metric, dict) else {} for metric in options.pre_edit]
            if len(metrics) != len(requests) or any("pre" not in metric for metric in metrics):
                order = f"in the same order ({len(requests)} requests)"
                raise RequestError(f"pre_edit must hold one dictionary with 'pre' per request, {order}")
            return metrics
        metrics = [{"pre": pre} for pre in self._measure(self.model, requests, options)]
        if options.pre_file is not None:
            with refusing(Path(options.pre_file)):
                Path(options.pre_file).write_text(json.dumps(metrics, indent=4), encoding="utf-8")
        return metrics

    def _measure(self, model, requests: Sequence[dict], options: CallOptions) -> list[dict]:
        if options.call == "generate_edit":
            return [generate_answers(model, self.tok, r, options.max_new_tokens) for r in requests]
        metric, fluency = options.eval_metric, options.test_generation
        if fluency or metric in ("ppl", "ood_ppl"):
            setting = model, self.model_name, self.hparams, self.tok
            return [compute_edit_quality(*setting, r, self.device, metric, fluency) for r in requests]
        return evaluate_all(model, self.tok, requests, hparams=self.hparams)

    def _apply(self, requests: list[dict], options: CallOptions, **kwargs):
        if options.records is not None:
            kwargs["records"] = options.records
        return self.apply_algo(
            self.model, self.tok, requests, self.hparams, copy=False, return_orig_weights=True, **kwargs
        )

    def _tried(
        self, requests: list[dict], options: CallOptions, **kwargs
    ) -> tuple[torch.nn.Module, dict[str, torch.Tensor], dict[str, str]]:
        """``_apply``; where it may fail, the model as it was, no weights, and the reason as ``failed``."""
        try:
            return *self._apply(requests, options, **kwargs), {}
        except (EditError, RequestError) as problem:
            if options.on_error == "stop":
                raise
            LOG.warning("%s -> %s failed: %s", requests[0]["prompt"], requests[0]["target_new"], problem)
            return self.model, {}, {"failed": str(problem)}

    def _restore(self, weights_copy: dict[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for name, value in weights_copy.items():
                try:
                    parameter = self.model.get_parameter(name)
                except AttributeError:
                    problem = f"returned weights of {name!r}, which the model does not have"
                    raise NeuronEditError(f"{self.alg_name} {problem}") from None
                parameter.copy_(value)

    def _log_edit(self, metric: dict, options: CallOptions) -> None:
        if options.verbose:
            request = metric["requested_rewrite"]
            edit = f"{request['prompt']} -> {request['target_new']}"
            LOG.info("%d editing: %s\n %s", metric["case_id"], edit, metric)

    def _finish(self, metrics: list[dict], model, options: CallOptions) -> None:
        """Measure the final model where asked for, and log the means of every phase."""
        if options.call == "generate_edit":
            return
        if options.final_evaluation:
            requests = [metric["requested_rewrite"] for metric in metrics]
            reference = [metric["pre"]["locality"] for metric in metrics]
            final_metrics = evaluate_all(model, self.tok, requests, reference, hparams=self.hparams)
            for metric, final in zip(metrics, final_metrics):
                metric["final"] = final
        for phase in ("pre", "post", "final") if options.final_evaluation else ("pre", "post"):
            LOG.info("%s: %s", phase, summarize(metrics, phase))


def _take_requests(kwargs: dict[str, Any], *arguments) -> list[dict]:
    """Ready requests among a call's keyword arguments, or those of its texts; takes their keywords out."""
    named = {name: kwargs.pop(name, None) for name in ("subject", "loc_prompts")}
    requests = kwargs.pop("requests", None)
    return prepare_requests(*arguments, **named) if requests is None else requests
