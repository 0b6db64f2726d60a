"""A method that keeps a gate beside the model: hidden states change, and no weights do."""

from __future__ import annotations

from typing import Any

import torch

from ..arch.view import ModelView
from ..models.gate.gate import Gate
from .method import Method, MethodResult


class GateMethod(Method):
    """The gate in the runner; ``load_model`` comes first."""

    def load_model(self, hparams) -> tuple[torch.nn.Module, Any]:
        model, tok = super().load_model(hparams)
        self._gate = Gate(ModelView.of(model, **hparams.module_overrides()), tok, hparams)
        return model, tok

    def __call__(self, model, tok, requests: list[dict], hparams) -> MethodResult:
        self._gate.add(requests)
        return MethodResult(model, {}, [])

    def module_variables(self) -> dict[str, Any]:
        return self._gate.state()

    def restore_module_variables(self, copies: dict[str, Any]) -> None:
        self._gate.load(copies)

    def saved_state(self, model: torch.nn.Module) -> dict[str, Any]:
        return {"gate": self._gate.state()}

    def load_state(self, model: torch.nn.Module, tok, hparams, saved: dict[str, Any]) -> None:
        self._gate.load(saved["gate"])
