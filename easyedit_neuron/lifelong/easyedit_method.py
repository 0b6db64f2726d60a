"""EasyEdit's own methods in the runner: every name of its ``ALG_DICT`` that edits a text model's weights.

They promise nothing: weights are compared after every edit, a failed one is undone from copies, and what a
    method keeps in
variables of its modules (AlphaEdit its C_p, for one) is put back, saved and, at the start of a run, reset, so
that runs in one process do not meet.
"""

from __future__ import annotations

import copy
import dataclasses
import dis
import importlib
import logging
import sys
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from .. import resources
from ..errors import HostError, HparamsError, NeuronEditError
from ..host.hparams import read_easyedit_hparams
from ..utils.suggest import did_you_mean
from . import easyedit_adapters as foreign_needs
from .method import Applied, Method
from .weights import GuardedWeights

LOG = logging.getLogger(__name__)
PREFIX = "EasyEdit:"
"""Of the names of such methods in settings and results."""

_ABSENT = object()
_pristine: dict[str, dict[str, Any]] = {}  # module -> its variables before the first run of this process


class ForeignMethod(Method):
    """A method of EasyEdit's registry.

    Args:
        alg_name: its key there.
        texts: sentences that edits are to leave alone, for methods that learn from such.

    Attributes:
        alone: the method decides for a whole batch, so that prompts must be measured one at a time.
    """

    def __init__(self, alg_name: str, texts: Sequence[str] = ()):
        from ..host import import_easyeditor

        foreign_needs.refuse(alg_name)
        self._package = import_easyeditor()
        algorithms = importlib.import_module("easyeditor.util.alg_dict").ALG_DICT
        if alg_name not in algorithms:
            raise HostError(f"EasyEdit has no method {alg_name!r}: {did_you_mean(alg_name, algorithms)}")
        self.alg_name, self.name, self._own = alg_name, PREFIX + alg_name, False
        batches = importlib.import_module("easyeditor.editors.batch_editor").BatchEditor
        self.batchable = batches.is_batchable_method(alg_name)
        self._apply = algorithms[alg_name]
        owner = getattr(self._apply, "__self__", None)
        if owner is not None:  # a shared object with a state of its own: another one for every run
            self._apply = getattr(type(owner)(), self._apply.__name__)
        self._stateful = owner is not None
        self.alone = alg_name in foreign_needs.ROUTED
        self._texts, self._made = texts, 0
        self._modules = list(_modules(self._apply))
        for module in self._modules:
            _reset(module)

    def hyperparameters(self, file: Path | str, changes: dict[str, Any]):
        """EasyEdit's hyperparameters of the method from its file, some fields changed; ``batch_size`` where
        the method has one."""
        hparams = read_easyedit_hparams(self._apply, Path(file))
        known = {field.name for field in dataclasses.fields(hparams)}
        for name, value in changes.items():
            if name == "batch_size" and name not in known:
                continue
            if name not in known:
                raise HparamsError(
                    f"setting 'method': unknown field {name!r} for {type(hparams).__name__}: {did_you_mean(name, known)}"
                )
            setattr(hparams, name, value)
        hparams.model_name = resources.model_path(hparams.model_name)
        return hparams

    def load_model(self, hparams) -> tuple[torch.nn.Module, Any]:
        """Model and tokenizer as EasyEdit loads them: the padding side is the method's."""
        try:
            editor = self._package.BaseEditor.from_hparams(hparams)
        except NeuronEditError:
            raise
        except Exception as problem:
            raise HostError(
                f"EasyEdit cannot load the model: {type(problem).__name__}: {problem}"
            ) from problem
        model = editor.model.eval()
        foreign_needs.prepare(self.alg_name, sys.modules[self._apply.__module__], model, editor.tok, hparams)
        return model, editor.tok

    def weights(self, model: torch.nn.Module) -> GuardedWeights:
        """Nothing is believed; a method with an object of its own cannot be saved."""
        weights = GuardedWeights(model)
        weights.whole = not self._stateful
        return weights

    def __call__(self, model, tok, requests: list[dict], hparams) -> Applied:
        requests = foreign_needs.with_unrelated_text(
            self.alg_name, copy.deepcopy(requests), self._texts, self._made
        )
        found = self._apply(
            model,
            tok,
            requests,
            hparams,
            copy=False,
            return_orig_weights=True,
            keep_original_weight=False,
            train_ds=None,
        )
        if not (isinstance(found, tuple) and len(found) == 2):
            raise HostError(
                f"EasyEdit's {self.alg_name} edits no weights (it returned {type(found).__name__}), so there is "
                "nothing to run on"
            )
        edited, originals = found
        while not hasattr(edited, "get_input_embeddings") and hasattr(edited, "model"):
            edited = edited.model  # a wrapper that only passes calls on, as GRACE's
        if self.alg_name == "GRACE" and not self._made:
            foreign_needs.follow_prompt(edited)
        self._made += len(requests)
        return Applied(edited, originals if isinstance(originals, dict) else {}, [])

    def begin(self) -> dict[str, dict[str, Any]]:
        """Copies of the variables of the method's modules."""
        return {
            module.__name__: {name: _copy(value) for name, value in _variables(module).items()}
            for module in self._modules
        }

    def undo(self, begun: dict[str, dict[str, Any]]) -> None:
        """The variables as they were."""
        for module in self._modules:
            _set(module, begun[module.__name__])

    def saved(self, model: torch.nn.Module) -> dict[str, Any]:
        """The variables that are tensors and plain values; others are caches that fill again."""
        return {
            "variables": {
                module.__name__: {name: value for name, value in _variables(module).items() if _plain(value)}
                for module in self._modules
            }
        }

    def load(self, model, tok, hparams, saved: dict[str, Any]) -> None:
        """The variables that were saved."""
        for module in self._modules:
            for name, value in saved["variables"].get(module.__name__, {}).items():
                setattr(module, name, value)


def _modules(function) -> Iterator[types.ModuleType]:
    """The modules of a method's package that are loaded."""
    package = function.__module__.rpartition(".")[0]
    for name, module in sorted(sys.modules.items()):
        if name == package or name.startswith(f"{package}."):
            yield module


def _names(module: types.ModuleType) -> set[str]:
    """Variables that functions of a module assign, and its containers."""
    names = {
        name
        for name, value in vars(module).items()
        if isinstance(value, (dict, list, set)) and not name.startswith("__")
    }
    codes = [
        value.__code__
        for value in vars(module).values()
        if isinstance(value, types.FunctionType) and value.__module__ == module.__name__
    ]
    while codes:
        code = codes.pop()
        names |= {step.argval for step in dis.get_instructions(code) if step.opname == "STORE_GLOBAL"}
        codes += [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return names


def _variables(module: types.ModuleType) -> dict[str, Any]:
    """Those of a module that exist."""
    return {name: vars(module)[name] for name in sorted(_names(module)) if name in vars(module)}


def _reset(module: types.ModuleType) -> None:
    if module.__name__ not in _pristine:
        _pristine[module.__name__] = {name: _copy(value) for name, value in _variables(module).items()}
    _set(module, _pristine[module.__name__])


def _set(module: types.ModuleType, values: dict[str, Any]) -> None:
    for name in _names(module):
        value = values.get(name, _ABSENT)
        if value is not _ABSENT:
            setattr(module, name, _copy(value))
        elif name in vars(module):
            delattr(module, name)


def _copy(value: Any) -> Any:
    """Tensors are changed in place, containers only gain entries."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    return copy.copy(value) if isinstance(value, (dict, list, set)) else value


def _plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and key != "tensor" and _plain(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(_plain, value))
    return value is None or isinstance(value, (bool, int, float, str, torch.Tensor))
