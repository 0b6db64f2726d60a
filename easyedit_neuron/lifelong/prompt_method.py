"""A method that changes the prompts and no weights: what it keeps is put in front of every question.

Rel, Gen, Loc, portability, known facts, first tokens, fluency and answers in words are measured on such
prompts. Perplexity and general ability are of plain text, which it leaves alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..models.ike.facts import Facts
from .method import Method, MethodResult


class PromptMethod(Method):
    """IKE in the runner; ``load_model`` comes first."""

    def load_model(self, hparams) -> tuple[torch.nn.Module, Any]:
        model, tok = super().load_model(hparams)
        self._facts = Facts.of(hparams, model, tok)
        return model, tok

    def __call__(self, model, tok, requests: list[dict], hparams) -> MethodResult:
        self._facts.add(requests)
        return MethodResult(model, {}, [])

    def asked(self, prompts: Sequence[str]) -> list[str]:
        return self._facts.asked(prompts)

    def module_variables(self) -> dict[tuple, str]:
        return dict(self._facts.by_fact)

    def restore_module_variables(self, copies: dict[tuple, str]) -> None:
        self._facts.by_fact = dict(copies)

    def saved_state(self, model: torch.nn.Module) -> dict[str, Any]:
        return {"facts": [[*fact, text] for fact, text in self._facts.by_fact.items()]}

    def load_state(self, model: torch.nn.Module, tok, hparams, saved: dict[str, Any]) -> None:
        self._facts.by_fact = {(prompt, subject): text for prompt, subject, text in saved["facts"]}
