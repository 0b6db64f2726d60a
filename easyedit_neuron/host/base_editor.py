"""The built-in editor: EasyEdit's ``BaseEditor`` calls, arguments and return values without EasyEdit.

Unlike EasyEdit's it writes no ``./logs`` folder, changes no tokenizer, seeds no global generator, chooses
nothing by substrings of the model's path, and checks every request before the first weight is changed. It
offers the methods of :mod:`easyedit_neuron.registry`.
"""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, Union

import torch
from tqdm import tqdm

from .. import registry
from ..errors import HostError, HparamsError, NeuronEditError, RequestError
from ..evaluation.fluency import generation_entropy
from ..evaluation.protocol import evaluate_all, finalize_locality, summarize
from ..evaluation.quality import FLUENCY_TOKENS, check_evaluation_type, compute_edit_quality, sections
from .checks import check_hparams, check_requests, check_single
from .generation import answers
from .load_model import load_model
from .prepare import prepare_requests

LOG = logging.getLogger(__name__)

Texts = Union[str, list[str]]
Result = tuple[list[dict], torch.nn.Module, dict[str, torch.Tensor]]

#: keyword arguments of EasyEdit's editors that mean nothing to our methods
_IGNORED = frozenset({"train_ds", "keep_original_weight", "summary_metrics"})


class BaseEditor:
    """Edits one model with one method.

    Attributes:
        model, tok: the model, edited in place, and its tokenizer.
        hparams, alg_name, model_name, device, apply_algo: as in EasyEdit.
    """

    @classmethod
    def from_hparams(cls, hparams) -> "BaseEditor":
        """The editor for a hyperparameter object, which names the method, the model and the device."""
        return cls(hparams)

    def __init__(self, hparams):
        if hparams is None:
            raise HparamsError("hparams is None; make it with <Method>HyperParams.from_hparams(path)")
        for name in ("alg_name", "model_name"):
            if not hasattr(hparams, name):
                raise HparamsError(f"field '{name}' is missing from {type(hparams).__name__}")
        check_evaluation_type(hparams)
        self.hparams, self.alg_name, self.model_name = hparams, hparams.alg_name, hparams.model_name
        self.method = registry.get_method(self.alg_name)
        self.apply_algo = self.method.load_apply()
        check_hparams(hparams)
        self.model, self.tok, self.device = load_model(hparams)

    # -- EasyEdit's calls
    # ----------------------------------------------------------------------------------------------

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
            prompts ... portability_inputs: see :func:`.prepare.prepare_requests`, with ``subject`` and
            ``loc_prompts`` as keywords. sequential_edit: keep every edit; else the weights are put back, bit
            for bit, after each. verbose: progress bar, and a log line per edit.
            **kwargs: ``requests`` (ready dictionaries in place of prompts; EasyEdit fails on it) and those of
                :meth:`edit_requests`.

        Returns:
            See :meth:`edit_requests`.
        """
        requests = self._requests(
            prompts,
            target_new,
            ground_truth,
            target_neg,
            rephrase_prompts,
            locality_inputs,
            portability_inputs,
            kwargs,
        )
        return self.edit_requests(requests, sequential_edit, verbose, **kwargs)

    def edit_requests(
        self,
        requests: Sequence[dict],
        sequential_edit: bool = False,
        verbose: bool = True,
        test_generation: bool = False,
        **kwargs,
    ) -> Result:
        """:meth:`edit` with ready request dictionaries.

        Keyword arguments: ``eval_metric`` ("ppl", "ood_ppl"; anything else is token accuracy), ``pre_edit``
            (metrics with "pre" from an
        earlier run, not measured again), ``pre_file`` (where the "pre" metrics are written as JSON),
        ``final_evaluation`` (after the last sequential edit every request is measured on the final model,
        under ``metrics[i]["final"]``), ``records`` (a list to which the method appends its edit records).

        Returns:
            ``metrics``: per request ``pre``, ``case_id``, ``requested_rewrite``, ``post`` (and ``final``);
                the model (put back unless
            sequential); ``weights_copy``: {parameter name: weights before the last edit}.

        Raises:
            RequestError, HparamsError: before any weight is changed.
        """
        eval_metric = kwargs.pop("eval_metric", "exact match")
        pre_edit, pre_file = kwargs.pop("pre_edit", None), kwargs.pop("pre_file", None)
        final = self._final_wanted(kwargs, sequential_edit)
        options = self._method_options(kwargs)
        check_single(self.hparams)
        requests = self._check(requests)
        metrics = self._before(requests, pre_edit, eval_metric, test_generation)
        if pre_file is not None and pre_edit is None:
            Path(pre_file).write_text(json.dumps(metrics, indent=4), encoding="utf-8")
        for i, request in enumerate(tqdm(requests, disable=not verbose, desc=self.alg_name)):
            edited, weights_copy = self._apply(
                [request], train_ds=None, keep_original_weight=False, **options
            )
            metrics[i].update(
                case_id=i,
                requested_rewrite=request,
                post=self._measure(edited, [request], eval_metric, test_generation)[0],
            )
            finalize_locality(metrics[i]["pre"], metrics[i]["post"])
            if not sequential_edit:
                self._restore(weights_copy)
            self._log_edit(verbose, i, request, metrics[i])
        self._finish(metrics, requests, edited, final)
        return metrics, edited, weights_copy

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
        """Edit ``hparams.batch_size`` facts at once, chunk after chunk; arguments as :meth:`edit`.

        Returns:
            As :meth:`edit_requests`, with ``time`` (seconds of the chunk's edit); ``case_id`` counts within
            the chunk, as in EasyEdit.
        """
        test_generation = kwargs.pop("test_generation", False)
        requests = self._requests(
            prompts,
            target_new,
            ground_truth,
            target_neg,
            rephrase_prompts,
            locality_inputs,
            portability_inputs,
            kwargs,
        )
        final = self._final_wanted(kwargs, sequential_edit)
        options = self._method_options(kwargs)
        size = self._check_batchable()
        requests = self._check(requests)
        metrics: list[dict] = []
        for start in tqdm(range(0, len(requests), size), disable=not verbose, desc=self.alg_name):
            chunk = requests[start : start + size]
            before = self._measure(self.model, chunk, "token_em", test_generation)
            rows = [
                {"case_id": i, "requested_rewrite": request, "pre": pre}
                for i, (request, pre) in enumerate(zip(chunk, before))
            ]
            began = perf_counter()
            edited, weights_copy = self._apply(chunk, **options)
            seconds = perf_counter() - began
            for row, post in zip(rows, self._measure(edited, chunk, "token_em", test_generation)):
                row.update(time=seconds, post=post)
                finalize_locality(row["pre"], row["post"])
            if not sequential_edit:
                self._restore(weights_copy)
            for row in rows:
                self._log_edit(verbose, row["case_id"], row["requested_rewrite"], row)
            metrics += rows
        self._finish(metrics, requests, edited, final)
        return metrics, edited, weights_copy

    def normal_edit(
        self, prompts: list[str], target_new: list[str], sequential_edit: bool = False, **kwargs
    ) -> tuple[None, torch.nn.Module, dict[str, torch.Tensor]]:
        """All requests in one call of the method, nothing measured, weights put back (whatever
        ``sequential_edit`` says, as in EasyEdit).

        ``subject`` may be given as a keyword (EasyEdit has no place for it, so methods that need one fail
        there).

        Returns:
            ``(None, model, weights_copy)``.
        """
        requests = self._requests(prompts, target_new, None, None, None, None, None, kwargs)
        options = self._method_options(kwargs)
        self._check_batchable()
        requests = self._check(requests)
        edited, weights_copy = self._apply(requests, keep_original_weight=False, **options)
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
        """As :meth:`edit`, with the model's free answers before and after in place of accuracies
        (:func:`.answers.answers`).

        Further keywords: ``test_generation``, ``pre_edit``, ``pre_file``, ``max_new_tokens`` (512).
        """
        test_generation, tokens = kwargs.pop("test_generation", False), kwargs.pop("max_new_tokens", 512)
        pre_edit, pre_file = kwargs.pop("pre_edit", None), kwargs.pop("pre_file", None)
        kwargs.pop("eval_metric", None)
        requests = self._requests(
            prompts,
            target_new,
            ground_truth,
            target_neg,
            rephrase_prompts,
            locality_inputs,
            portability_inputs,
            kwargs,
        )
        options = self._method_options(kwargs)
        check_single(self.hparams)
        requests = self._check(requests)
        if pre_edit is None:
            results = [{"pre": answers(self.model, self.tok, request, tokens)} for request in requests]
        else:
            results = self._given(pre_edit, requests)
        if pre_file is not None and pre_edit is None:
            Path(pre_file).write_text(json.dumps(results, indent=4), encoding="utf-8")
        for i, request in enumerate(tqdm(requests, disable=not verbose, desc=self.alg_name)):
            edited, weights_copy = self._apply(
                [request], train_ds=None, keep_original_weight=False, **options
            )
            post = answers(edited, self.tok, request, tokens)
            if test_generation:
                post["fluency"] = {
                    "ngram_entropy": generation_entropy(edited, self.tok, [request["prompt"]], FLUENCY_TOKENS)
                }
            results[i].update(case_id=i, requested_rewrite=request, post=post)
            if not sequential_edit:
                self._restore(weights_copy)
            self._log_edit(verbose, i, request, results[i])
        return results, edited, weights_copy

    # -- checks, before anything is changed
    # ------------------------------------------------------------------------------

    def _requests(
        self, prompts, target_new, ground_truth, target_neg, rephrase, locality, portability, kwargs
    ) -> list[dict]:
        ready = kwargs.pop("requests", None)
        named = {name: kwargs.pop(name, None) for name in ("subject", "loc_prompts")}
        if ready is not None:
            return ready
        return prepare_requests(
            prompts, target_new, ground_truth, target_neg, rephrase, locality, portability, **named
        )

    def _check(self, requests: Sequence[dict]) -> list[dict]:
        requests = check_requests(self.hparams, requests, self.model, self.tok)
        for i, request in enumerate(requests):
            try:
                sections(request)
            except RequestError as error:
                raise RequestError(f"request {i}: {error}") from None
        return requests

    def _check_batchable(self) -> int:
        if not self.method.batchable:
            raise HostError(f"method {self.alg_name!r} edits one fact at a time; use edit()")
        size = getattr(self.hparams, "batch_size", None)
        if not isinstance(size, int) or size < 1:
            raise HparamsError(
                f"field 'batch_size': batch_edit() needs a whole number of at least 1, not {size!r}"
            )
        return size

    def _final_wanted(self, kwargs: dict[str, Any], sequential_edit: bool) -> bool:
        wanted = bool(kwargs.pop("final_evaluation", False))
        if wanted and not sequential_edit:
            raise HostError(
                "final_evaluation measures all edits on the final model; it needs sequential_edit=True"
            )
        return wanted

    def _method_options(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        if kwargs.get("metric_kwargs") is not None:
            raise HostError(
                "metric_kwargs (EasyEdit's sentence metrics) needs EasyEdit's BaseEditor: host='easyedit'"
            )
        unknown = sorted(set(kwargs) - _IGNORED - {"records", "metric_kwargs"})
        if unknown:
            LOG.warning("ignored keyword arguments: %s", ", ".join(unknown))
        return {"records": kwargs["records"]} if kwargs.get("records") is not None else {}

    @staticmethod
    def _given(pre_edit: Sequence[dict], requests: Sequence[dict]) -> list[dict]:
        if len(pre_edit) != len(requests) or any("pre" not in entry for entry in pre_edit):
            raise RequestError(
                f"pre_edit must hold one dictionary with 'pre' per request ({len(requests)}), in the same order"
            )
        return [dict(entry) for entry in pre_edit]

    # -- work
    # ------------------------------------------------------------------------------------------------------------

    def _before(self, requests, pre_edit, eval_metric: str, test_generation: bool) -> list[dict]:
        if pre_edit is not None:
            return self._given(pre_edit, requests)
        return [{"pre": pre} for pre in self._measure(self.model, requests, eval_metric, test_generation)]

    def _measure(
        self, model, requests: Sequence[dict], eval_metric: str, test_generation: bool
    ) -> list[dict]:
        if test_generation or eval_metric in ("ppl", "ood_ppl"):
            return [
                compute_edit_quality(
                    model,
                    self.model_name,
                    self.hparams,
                    self.tok,
                    request,
                    self.device,
                    eval_metric,
                    test_generation,
                )
                for request in requests
            ]
        return evaluate_all(model, self.tok, requests, hparams=self.hparams)

    def _apply(self, requests: list[dict], **options):
        return self.apply_algo(
            self.model, self.tok, requests, self.hparams, copy=False, return_orig_weights=True, **options
        )

    def _restore(self, weights_copy: dict[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for name, value in weights_copy.items():
                try:
                    parameter = self.model.get_parameter(name)
                except AttributeError:
                    raise NeuronEditError(
                        f"{self.alg_name} returned weights of {name!r}, which the model does not have"
                    ) from None
                parameter.copy_(value)

    def _log_edit(self, verbose: bool, i: int, request: dict, metric: dict) -> None:
        if verbose:
            LOG.info("%d editing: %s -> %s\n %s", i, request["prompt"], request["target_new"], metric)

    def _finish(self, metrics: list[dict], requests: list[dict], model, final: bool) -> None:
        if final:
            reference = [metric["pre"]["locality"] for metric in metrics]
            for metric, result in zip(
                metrics, evaluate_all(model, self.tok, requests, reference, hparams=self.hparams)
            ):
                metric["final"] = result
        for phase in ("pre", "post") + (("final",) if final else ()):
            LOG.info("%s: %s", phase, summarize(metrics, phase))
