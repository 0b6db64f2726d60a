"""What the runner asks of a method, whichever host it is from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ..arch.view import ModelView
from ..errors import ArchitectureError, DataError, HostError, HparamsError, MaskError
from ..host.load_model import load_model
from ..locate_then_edit.sequential_state import restore_session, saved_session
from ..registry import MethodSpec
from .weights import GuardedWeights, Weights

FATAL = (HparamsError, ArchitectureError, HostError, DataError, MaskError)
"""Errors that no other edit would escape: the run ends."""


@dataclass
class Applied:
    """What one call gave: the model to measure, copies of what was changed, records."""

    model: torch.nn.Module
    originals: dict[str, torch.Tensor]
    records: list


class Method:
    """A method of the registry.

    Attributes:
        name, batchable: as the registry has them.
    """

    def __init__(self, spec: MethodSpec):
        self.name, self.batchable = spec.name, spec.batchable
        self._own = spec.apply.startswith(f"{__package__.rpartition('.')[0]}.")
        self._apply: Callable[..., Any] = spec.load_apply()

    def weights(self, model: torch.nn.Module) -> Weights:
        """Ours undo a failed edit themselves and return copies of all that they change; of others nothing is
        believed."""
        return Weights(model) if self._own else GuardedWeights(model)

    def __call__(self, model, tok, requests: list[dict], hparams) -> Applied:
        """Edits the model in place."""
        records: list = []
        edited, originals = self._apply(
            model,
            tok,
            requests,
            hparams,
            copy=False,
            return_orig_weights=True,
            keep_original_weight=False,
            records=records,
        )
        return Applied(edited, originals, records)

    def load_model(self, hparams) -> tuple[torch.nn.Module, Any]:
        """Model and tokenizer."""
        return load_model(hparams)[:2]

    def begin(self) -> Any:
        """Before an edit: what ``undo`` needs."""

    def undo(self, begun: Any) -> None:
        """After a failed edit: what the method keeps besides weights is as it was at ``begin``."""

    def saved(self, model: torch.nn.Module) -> dict[str, Any]:
        """What the method keeps besides the weights, for ``load``."""
        return {"state": saved_session(model)}

    def load(self, model: torch.nn.Module, tok, hparams, saved: dict[str, Any]) -> None:
        """Takes that up. The model must still be untouched."""
        if any(saved["state"].values()):
            restore_session(ModelView.of(model, **hparams.module_overrides()), tok, hparams, saved["state"])
