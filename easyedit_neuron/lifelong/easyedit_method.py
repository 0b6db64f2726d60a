"""EasyEdit's own methods in the runner: every name of its ``ALG_DICT`` that edits a text model's weights.

EasyEdit promises nothing about them: weights are compared after every edit, and a failed edit is undone from
copies. What a method keeps in variables of its modules (``easyedit_adapters.STATE_VARIABLES``) is reset at
the start of a run, put back after a failed edit, and saved with the run.
"""

import copy
import dataclasses
import importlib
import sys
from pathlib import Path
from typing import Any

import torch

from .. import resources
from ..errors import HostError, HparamsError, NeuronEditError
from ..host.hparams import read_easyedit_hparams
from ..utils.suggest import did_you_mean
from . import EASYEDIT_PREFIX
from . import easyedit_adapters as adapters
from .method import Method, MethodResult
from .weights import ComparedWeights


class EasyEditMethod(Method):
    """A method of EasyEdit's ``ALG_DICT``; ``HostError`` where it does not exist or cannot be run here."""

    def __init__(self, alg_name: str):
        from ..host import import_easyeditor

        adapters.refuse(alg_name)
        self._package = import_easyeditor()
        algorithms = importlib.import_module("easyeditor.util.alg_dict").ALG_DICT
        if alg_name not in algorithms:
            raise HostError(f"EasyEdit has no method {alg_name!r}: {did_you_mean(alg_name, algorithms)}")
        batch_editor = importlib.import_module("easyeditor.editors.batch_editor").BatchEditor
        self.alg_name, self.name = alg_name, EASYEDIT_PREFIX + alg_name
        self.batchable = batch_editor.is_batchable_method(alg_name)
        self.one_prompt_at_a_time = alg_name in adapters.ONE_PROMPT_AT_A_TIME
        self._apply = algorithms[alg_name]
        self._has_executor = hasattr(self._apply, "__self__")
        self._texts: list[str] = []  # that edits must leave alone, for WISE
        self.restart()
        self._variables = adapters.ModuleVariables(alg_name, self._apply.__module__.rpartition(".")[0])
        self._variables.write({})

    def restart(self) -> None:
        """As before the first edit, but for the variables of its modules."""
        if self._has_executor:  # a shared object with a state of its own: every run gets a new one
            self._apply = getattr(type(self._apply.__self__)(), self._apply.__name__)
        self._edits_made = 0

    def hyperparameters(self, file: Path | str, changes: dict[str, Any]):
        """EasyEdit's hyperparameters from a file with changes; ``HparamsError`` for an unknown field.

        ``batch_size`` among the changes is left out where the method has no such field.
        """
        hparams = read_easyedit_hparams(self._apply, Path(file))
        fields = {field.name for field in dataclasses.fields(hparams)}
        for name, value in changes.items():
            if name in fields:
                setattr(hparams, name, value)
            elif name != "batch_size":
                problem = f"unknown field {name!r} for {type(hparams).__name__}: {did_you_mean(name, fields)}"
                raise HparamsError(f"setting 'method': {problem}")
        hparams.model_name = resources.model_path(hparams.model_name)
        return hparams

    def load_model(self, hparams) -> tuple[torch.nn.Module, Any]:
        """Model and tokenizer as EasyEdit loads them: the padding side depends on the method."""
        try:
            editor = self._package.BaseEditor.from_hparams(hparams)
        except NeuronEditError:
            raise
        except Exception as problem:
            reason = f"{type(problem).__name__}: {problem}"
            raise HostError(f"EasyEdit cannot load the model: {reason}") from problem
        model = editor.model.eval()
        self.prepare(model, editor.tok, hparams)
        if self.alg_name == "WISE":
            self._texts = adapters.own_sentences(model, editor.tok)
        return model, editor.tok

    def prepare(self, model: torch.nn.Module, tok, hparams) -> None:
        """What the method needs of the untouched model under these hyperparameters, which are changed."""
        adapters.prepare(self.alg_name, sys.modules[self._apply.__module__], model, tok, hparams)

    def edited_weights(self, model: torch.nn.Module) -> ComparedWeights:
        """Weights are compared; the state inside a method's own object can be neither saved nor undone."""
        weights = ComparedWeights(model)
        weights.restorable = not self._has_executor
        return weights

    def __call__(self, model, tok, requests: list[dict], hparams) -> MethodResult:
        """Edit the model in place; ``HostError`` if the method returns no edited model."""
        requests = copy.deepcopy(requests)
        requests = adapters.with_unrelated_text(self.alg_name, requests, self._texts, self._edits_made)
        options = {"copy": False, "return_orig_weights": True, "keep_original_weight": False}
        result = self._apply(model, tok, requests, hparams, train_ds=None, **options)
        if not (isinstance(result, tuple) and len(result) == 2):
            kind = type(result).__name__
            raise HostError(f"EasyEdit's {self.alg_name} edits no weights, it returned {kind}")
        edited, originals = result
        while not hasattr(edited, "get_input_embeddings") and hasattr(edited, "model"):
            edited = edited.model  # a wrapper that only passes calls on, as GRACE's
        if self.alg_name == "GRACE" and not self._edits_made:
            adapters.follow_prompt(edited)
        self._edits_made += len(requests)
        return MethodResult(edited, originals if isinstance(originals, dict) else {}, [])

    def module_variables(self) -> dict[str, dict[str, Any]]:
        return self._variables.copies()

    def restore_module_variables(self, copies: dict[str, dict[str, Any]]) -> None:
        self._variables.write(copies)

    def saved_state(self, model: torch.nn.Module) -> dict[str, Any]:
        return {"variables": self._variables.copies(caches=False)}

    def load_state(self, model: torch.nn.Module, tok, hparams, saved: dict[str, Any]) -> None:
        self._variables.write(saved["variables"])
