"""A model whose edits are taken back: by our methods, and by EasyEdit's on a copy."""

import copy
import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import torch

from ..arch.view import ModelView
from ..edits.write import restore
from ..errors import EditError, NeuronEditError
from ..evaluation import evaluate_all, fluency, perplexity
from ..evaluation.answers import answers
from ..evaluation.sections import with_prompts
from ..host.hparams import easyedit_hparams_file
from ..lifelong import EASYEDIT_PREFIX
from ..models.gate.gate import Gate
from ..models.ike.facts import Facts
from ..registry import get_method
from ..utils.lists import mean
from ..utils.random_state import seed_everything

EASYEDIT_SEED = 42
"""EasyEdit's editor sets this seed; some of its methods draw dropout or sentences."""


class Untouched:
    """A model that our methods edit in place, ``edited``, until ``restore``.

    ``batch_size``: prompts that are measured together.
    """

    batch_size = 64

    def __init__(self, model: torch.nn.Module, tok):
        self.model, self.tok = model, tok
        self._originals: dict[str, torch.Tensor] = {}

    @property
    def edited(self) -> torch.nn.Module:
        """The model with all edits since ``restore``."""
        return self.model

    def edit(self, requests: list[dict], hparams, records: list | None = None) -> None:
        """Make one batch of edits; a failed one raises ``NeuronEditError`` and changes nothing."""
        apply = get_method(hparams.alg_name).load_apply()
        _, weights = apply(self.model, self.tok, requests, hparams, return_orig_weights=True, records=records)
        self._originals = {**weights, **self._originals}  # the first copy of a weight is the untouched one

    def evaluate(
        self, requests: list[dict], reference: list, exact_match: bool = False, hparams=None
    ) -> list[dict]:
        """EasyEdit's metrics of the edited model; ``reference``: of ``locality_reference`` on the untouched
        one; ``hparams``: of the edits, whose form is asked."""
        options = {"reference": reference, "exact_match": exact_match, "hparams": hparams}
        return evaluate_all(self.edited, self.tok, requests, batch_size=self.batch_size, **options)

    def perplexity(self, texts: list[str]) -> float:
        """Of the edited model on some texts."""
        return perplexity(self.edited, self.tok, texts, min(self.batch_size, 32))

    def fluency(self, prompts: list[str], tokens: int) -> float | None:
        """Mean n-gram entropy (bits) of what the edited model writes behind the prompts."""
        return mean(fluency(self.edited, self.tok, prompts, tokens))

    def answers(self, prompts: list[str]) -> list[str]:
        """What the edited model says, greedily."""
        return answers(self.edited, self.tok, prompts, batch_size=self.batch_size) if prompts else []

    def restore(self) -> None:
        """Take all edits back."""
        restore(self.model, self._originals)
        self._originals = {}


class PromptUntouched(Untouched):
    """A model whose new facts stand in front of the questions, until ``restore``."""

    def __init__(self, model: torch.nn.Module, tok, hparams):
        super().__init__(model, tok)
        self._facts = Facts.of(hparams, model, tok)

    def edit(self, requests: list[dict], hparams, records: list | None = None) -> None:
        self._facts.add(requests)

    def evaluate(
        self, requests: list[dict], reference: list, exact_match: bool = False, hparams=None
    ) -> list[dict]:
        asked = with_prompts(requests, self._facts.asked)
        return super().evaluate(asked, reference, exact_match, hparams)

    def fluency(self, prompts: list[str], tokens: int) -> float | None:
        return super().fluency(self._facts.asked(prompts), tokens)

    def answers(self, prompts: list[str]) -> list[str]:
        return super().answers(self._facts.asked(prompts))

    def restore(self) -> None:
        self._facts.by_fact = {}


class GateUntouched(Untouched):
    """A model beside which a gate is kept, until ``restore``."""

    def __init__(self, model: torch.nn.Module, tok, hparams):
        super().__init__(model, tok)
        self._gate = Gate(ModelView.of(model, **hparams.module_overrides()), tok, hparams)
        self._empty = self._gate.state()

    def edit(self, requests: list[dict], hparams, records: list | None = None) -> None:
        self._gate.add(requests)

    def restore(self) -> None:
        self._gate.load(self._empty)


BESIDE = {"IKE": PromptUntouched, "Gate": GateUntouched}
"""Our methods that edit no weights."""


class EasyEditUntouched(Untouched):
    """A model that one of EasyEdit's methods edits; the edits are made on a copy.

    What the method keeps outside of the model is taken back too, but for context sentences, which depend on
    the untouched model alone.

    Args:
        name: ``EasyEdit:METHOD``.
        model: name of a model with a file of this method, shipped or EasyEdit's own.
        file: hyperparameters in EasyEdit's own form; None: those of the model.
        changes: of hyperparameters.

    Raises:
        HparamsError, HostError: there is no such file, no such method, or no EasyEdit.
    """

    def __init__(
        self, name: str, model: str, file: Path | str | None = None, changes: dict[str, Any] | None = None
    ):
        from ..lifelong.easyedit_method import EasyEditMethod  # needs EasyEdit

        alg_name = name.removeprefix(EASYEDIT_PREFIX)
        self.method = EasyEditMethod(alg_name)
        path, own = (Path(file), {}) if file else easyedit_hparams_file(alg_name, model)
        self.hparams = self.method.hyperparameters(path, own | (changes or {}))
        prepared = copy.deepcopy(self.hparams)
        with _silent():
            loaded, tok = self.method.load_model(prepared)
        super().__init__(loaded, tok)
        self.batch_size = 1 if self.method.one_prompt_at_a_time else self.batch_size
        self._prepared = copy.deepcopy(self.hparams), prepared  # the second with what the model implies
        self._variables = self.method.module_variables()
        self._edited: torch.nn.Module | None = None
        self._measured: torch.nn.Module | None = None

    @property
    def edited(self) -> torch.nn.Module:
        return self._measured if self._measured is not None else self.model

    def edit(self, requests: list[dict], hparams, records: list | None = None) -> None:
        if self._prepared[0] != hparams:
            self._prepare(hparams)
        if self._edited is None:
            self._edited = copy.deepcopy(self.model)
            seed_everything(EASYEDIT_SEED)
        prepared = copy.deepcopy(self._prepared[1])
        try:
            with _silent():
                self._measured = self.method(self._edited, self.tok, requests, prepared).model
        except NeuronEditError:
            raise
        except Exception as problem:
            reason = " ".join(str(problem).split())
            raise EditError(f"{self.method.name}: {type(problem).__name__}: {reason}") from problem
        self._keep_contexts()

    def restore(self) -> None:
        self._edited = self._measured = None
        self.method.restart()
        self.method.restore_module_variables(self._variables)

    def _prepare(self, hparams) -> None:
        """What EasyEdit computes of the untouched model under these hyperparameters (projectors)."""
        self.method.restart()
        self.method.restore_module_variables({})
        prepared = copy.deepcopy(hparams)
        with _silent():
            self.method.prepare(self.model, self.tok, prepared)
        self._prepared = copy.deepcopy(hparams), prepared
        self._variables = self.method.module_variables()

    def _keep_contexts(self) -> None:
        for module, variables in self.method.module_variables().items():
            if "CONTEXT_TEMPLATES_CACHE" in variables:
                self._variables[module]["CONTEXT_TEMPLATES_CACHE"] = variables["CONTEXT_TEMPLATES_CACHE"]


@contextmanager
def _silent() -> Iterator[None]:
    """Without what EasyEdit prints: several lines for every step of every edit."""
    with (
        open(os.devnull, "w", encoding="utf-8") as nowhere,
        redirect_stdout(nowhere),
        redirect_stderr(nowhere),
    ):
        yield
