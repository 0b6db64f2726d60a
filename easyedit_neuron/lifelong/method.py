"""A method and the model that it edits; a batch of edits is applied completely or not at all."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..arch.load_model import load_model
from ..arch.view import ModelView
from ..errors import ArchitectureError, DataError, HostError, HparamsError, MaskError, StatisticsError
from ..locate_then_edit.sequential_state import restore_session, saved_session
from ..registry import MethodSpec
from .weights import ComparedWeights, EditedWeights

LOG = logging.getLogger(__name__)
FATAL = (HparamsError, ArchitectureError, HostError, DataError, MaskError, StatisticsError)
"""Errors that every other edit would meet too: the run ends."""


@dataclass
class MethodResult:
    """What one call of a method returned; ``records`` are ``EditRecord`` of our own methods, empty for
    others.

    ``model`` is the one to measure, which may be a wrapper. ``originals``: parameter name -> copy from
    before.
    """

    model: torch.nn.Module
    originals: dict[str, torch.Tensor]
    records: list


class Method:
    """A method of the registry; ``one_prompt_at_a_time``: its edited model is measured prompt by prompt."""

    one_prompt_at_a_time = False

    def __init__(self, spec: MethodSpec):
        self.name, self.batchable = spec.name, spec.batchable
        self._is_ours = spec.apply.startswith(f"{__package__.rpartition('.')[0]}.")
        self._apply: Callable[..., Any] = spec.load_apply()

    def load_model(self, hparams) -> tuple[torch.nn.Module, Any]:
        """Model and tokenizer of the hyperparameters."""
        return load_model(hparams)[:2]

    def edited_weights(self, model: torch.nn.Module) -> EditedWeights:
        """Our methods return copies of all that they change; methods of others are checked by comparing."""
        return EditedWeights(model) if self._is_ours else ComparedWeights(model)

    def __call__(self, model, tok, requests: list[dict], hparams) -> MethodResult:
        """Edit the model in place."""
        records: list = []
        options = {"copy": False, "return_orig_weights": True, "keep_original_weight": False}
        edited, originals = self._apply(model, tok, requests, hparams, records=records, **options)
        return MethodResult(edited, originals, records)

    def asked(self, prompts: Sequence[str]) -> list[str]:
        """The prompts as the edited model is asked them: a method may put what it keeps in front of them."""
        return list(prompts)

    def module_variables(self) -> Any:
        """Copies of what the method keeps outside of the model, for ``restore_module_variables``."""

    def restore_module_variables(self, copies: Any) -> None:
        """Put that back after a failed edit."""

    def saved_state(self, model: torch.nn.Module) -> dict[str, Any]:
        """What the method keeps besides the weights, as tensors and plain values."""
        return {"state": saved_session(model)}

    def load_state(self, model: torch.nn.Module, tok, hparams, saved: dict[str, Any]) -> None:
        """Continue with a saved state; the model must still be untouched."""
        if any(saved["state"].values()):
            restore_session(ModelView.of(model, **hparams.module_overrides()), tok, hparams, saved["state"])


@dataclass
class BatchResult:
    """The records of a batch of edits, where the method gives any; or why it failed."""

    records: list
    failure: str | None = None


class ModelEditor:
    """A method with the model that it edits in place, and the ``weights`` that were changed so far.

    ``measured_model`` is the one to measure; a method may return a wrapper.
    """

    def __init__(self, method: Method, model: torch.nn.Module, tok, hparams):
        self.method, self.model, self.tok, self.hparams = method, model, tok, hparams
        self.measured_model = model
        self.weights = method.edited_weights(model)

    def edit(self, requests: list[dict]) -> BatchResult:
        """Make a batch of edits. After a failure, or values that are not finite, all is as it was before.

        Errors of ``FATAL`` and a failed edit that cannot be undone end the run.
        """
        variables, originals = self.method.module_variables(), None
        try:
            result = self.method(self.model, self.tok, requests, self.hparams)
            originals = result.originals
            self.weights.accept(originals)
        except FATAL:
            raise
        except Exception as problem:
            LOG.debug("failed edit", exc_info=True)
            failure = f"{type(problem).__name__}: {' '.join(str(problem).split())}"
        else:
            self.measured_model = result.model
            if result.model is not self.model:
                self.weights.restorable = False
            return BatchResult(result.records)
        # Outside of the handler, because the traceback holds the tensors of the failed edit.
        self.weights.undo(originals)
        self.method.restore_module_variables(variables)
        return BatchResult([], failure)

    def saved_state(self) -> dict[str, Any]:
        """``weights`` and ``method``, for ``load_state``."""
        return {"weights": self.weights.current(), "method": self.method.saved_state(self.model)}

    def load_state(self, saved: dict[str, Any]) -> None:
        """Continue with a saved state; the model must still be untouched."""
        self.method.load_state(self.model, self.tok, self.hparams, saved["method"])
        self.weights.load(saved["weights"])
