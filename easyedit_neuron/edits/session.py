"""The sequential state of a model: keys of earlier edits, contexts and statistics. No module keeps a method's
state.

It is bound to the model object and to its weights: after each edit the fingerprint of the edited weights is
    noted, and
before the next one the model's present fingerprint is looked up. If a host has put earlier weights back
(EasyEdit does, after every non-sequential edit), the keys of the edits that are gone are dropped with them.
"""

import copy
import dataclasses
import importlib
import logging
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from ..arch.view import ModelView
from ..errors import StateError
from ..locate_then_edit.solver.key_buffer import KeyBuffer
from ..locate_then_edit.solver.sequential import SequentialSolver
from ..statistics.cache import Statistics
from ..utils.fingerprint import fingerprints
from .origins import note_edit, origins, set_origins
from .record import Delta, EditRecord
from .request import EditRequest, Fact
from .write import down_names, fingerprint, restore, write

LOG = logging.getLogger(__name__)
GONE = "gone:"  # before a step: the edit is in the weights, but these have never been as they would be with it as the last


@dataclass
class SequentialState:
    """State of one model under one setting of layers, statistics and contexts.

    Attributes:
        base: fingerprint of the edited weights before the first edit.
        steps: fingerprints after each edit, or after one was taken back.
        counts: keys that each edit added to every layer's buffer (0 where earlier edits are not protected).
        edited: what each edit's requests say.
        contexts: groups of context templates.
        statistics: covariances and null spaces of the unedited model.
    """

    base: str
    contexts: list[list[str]]
    statistics: Statistics
    steps: list[str] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    edited: list[list[Fact]] = field(default_factory=list)
    _buffers: dict[int, KeyBuffer] = field(default_factory=dict)
    _solvers: dict[int, tuple[tuple, SequentialSolver]] = field(default_factory=dict)
    _waiting: dict[int, dict] = field(
        default_factory=dict
    )  # solvers of a saved state that have not been asked for since

    def buffer(self, layer: int) -> KeyBuffer:
        """M [d_ff, m]: the keys of all edits that are in the weights, each on the weights after its edit."""
        if layer not in self._buffers:
            view = self.statistics.view
            self._buffers[layer] = KeyBuffer(view.d_ff, view.device_of(layer), view.compute_dtype)
        return self._buffers[layer]

    def solver(self, layer: int, setting: tuple, make: Callable[[], SequentialSolver]) -> SequentialSolver:
        """The solver of a layer; a new one where ``setting`` is not that of the one before."""
        if layer not in self._solvers or self._solvers[layer][0] != setting:
            self._solvers.pop(layer, None)  # its memory is needed
            self._solvers[layer] = setting, make()
            waiting = self._waiting.pop(layer, None)
            if waiting is not None and waiting["setting"] == list(setting):
                self._solvers[layer][1].restore(waiting["solver"])
        return self._solvers[layer][1]

    @property
    def held_bytes(self) -> dict[str, int]:
        """Bytes that grow with the number of edits: ``keys`` of the buffers, ``solvers`` beside the
        statistics."""
        return {
            "keys": sum(buffer.held_bytes for buffer in self._buffers.values()),
            "solvers": sum(solver.held_bytes for _, solver in self._solvers.values()),
        }

    def note(self, after: str, keys: dict[int, torch.Tensor], requests: Sequence[EditRequest] = ()) -> None:
        """Appends an edit of ``requests`` that has been written; ``keys``: layer -> K [d_ff, n] to protect
        from later edits, or empty."""
        for layer, columns in keys.items():
            self.buffer(layer).append(columns)
        self.steps.append(after)
        self.counts.append(next((k.shape[1] for k in keys.values()), 0))
        self.edited.append([request.fact for request in requests])

    def take_out(self, after: str, present: str) -> bool:
        """Forgets a single edit that has been taken out of the weights; False if it is none of the state's.

        Args:
            after: fingerprint of the weights right after that edit, which tells which one it is.
            present: of the weights now. Those that the steps since that edit noted exist no longer, so that
                no step but ``present`` and those before the edit can be gone back to.
        """
        found = [number for number, step in enumerate(self.steps) if step.removeprefix(GONE) == after]
        if not found:
            self.note(present, {})
            return False
        at = found[-1]
        start, count = sum(self.counts[:at]), self.counts[at]
        for buffer in self._buffers.values() if count else ():
            buffer.remove(slice(start, start + count))
        del self.steps[at], self.counts[at], self.edited[at]
        self.steps[at:] = [step if step.startswith(GONE) else GONE + step for step in self.steps[at:]]
        self.note(present, {})
        return True

    def saved(self) -> dict:
        """Everything but the statistics, which have files of their own: tensors and plain values, for
        ``restored``."""
        solvers = self._waiting | {
            layer: {"setting": list(setting), "solver": solver.saved()}
            for layer, (setting, solver) in self._solvers.items()
        }
        return {
            "base": self.base,
            "contexts": self.contexts,
            "steps": self.steps,
            "counts": self.counts,
            "edited": self.edited,
            "buffers": {str(layer): buffer.saved() for layer, buffer in self._buffers.items()},
            "solvers": {str(layer): solver for layer, solver in solvers.items()},
            "statistics": self.statistics.held(),
        }

    @classmethod
    def restored(cls, saved: dict, statistics: Statistics) -> "SequentialState":
        """The state that was saved. ``statistics`` are those of the unedited weights, which the model must
        have now."""
        statistics.hold(saved["statistics"])
        return cls(
            saved["base"],
            saved["contexts"],
            statistics,
            list(saved["steps"]),
            list(saved["counts"]),
            [[tuple(fact) for fact in step] for step in saved["edited"]],
            {int(layer): KeyBuffer.restored(buffer) for layer, buffer in saved["buffers"].items()},
            _waiting={int(layer): solver for layer, solver in saved["solvers"].items()},
        )

    def follow(self, present: str, stale_keys: bool = False) -> bool:
        """Drops the edits that are no longer in the weights; False if the weights are of no known step.

        ``stale_keys`` leaves their keys in the buffers, as EasyEdit does.
        """
        known = [self.base] + self.steps
        if present not in known:
            return False
        at = len(known) - 1 - known[::-1].index(present)
        if at < len(self.steps):
            LOG.info("earlier weights were put back: %d edit(s) forgotten", len(self.steps) - at)
            del self.steps[at:], self.counts[at:], self.edited[at:]
            for buffer in () if stale_keys else self._buffers.values():
                buffer.truncate(sum(self.counts))
        return True


_STATES: "weakref.WeakKeyDictionary[torch.nn.Module, dict[str, SequentialState]]" = (
    weakref.WeakKeyDictionary()
)
_KEPT: "weakref.WeakKeyDictionary[torch.nn.Module, dict[str, Any]]" = weakref.WeakKeyDictionary()
_RECORDS: "weakref.WeakKeyDictionary[torch.nn.Module, EditRecord]" = weakref.WeakKeyDictionary()
_NEWEST: "weakref.WeakKeyDictionary[torch.nn.Module, tuple[str, dict[str, str]]]" = (
    weakref.WeakKeyDictionary()
)  # see commit
_LISTENERS: "weakref.WeakKeyDictionary[torch.nn.Module, list[Callable[[EditRecord], None]]]" = (
    weakref.WeakKeyDictionary()
)


def state_of(view: ModelView, tok, hparams, setting: str, make_contexts) -> tuple[SequentialState, str]:
    """The model's state under ``setting`` and the fingerprint of its weights now.

    Args:
        view, tok, hparams: as everywhere.
        setting: key of everything that the state depends on beside the weights.
        make_contexts: called without arguments where a new state is needed.

    Returns:
        (state, fingerprint). Weights that no step of the state produced start a new state.
    """
    layers = list(hparams.layers)
    present = fingerprint(view.model, down_names(view, layers))
    states = _STATES.setdefault(view.model, {})
    state = states.get(setting)
    steps = 0 if state is None else len(state.steps)
    known = state is not None and state.follow(present, hparams.has_quirk("stale_keys"))
    if known and len(state.steps) < steps:
        _RECORDS.pop(view.model, None)
    if not known:
        if state is not None:
            LOG.warning("the weights were changed from outside: earlier edits are no longer protected")
        state = SequentialState(present, make_contexts(), Statistics(view, tok, hparams))
    states.pop(setting, None)
    states[setting] = state  # the newest is the last
    return state, present


def share(model: torch.nn.Module, twin: torch.nn.Module) -> None:
    """Gives a deep copy of a model the model's state: the earlier edits are in its weights too."""
    if model in _RECORDS:
        _RECORDS[twin] = _RECORDS[model]
    if model in _KEPT:
        _KEPT[twin] = dict(_KEPT[model])
    set_origins(twin, origins(model))
    if model in _STATES:
        _STATES[twin] = {
            setting: dataclasses.replace(
                s,
                statistics=s.statistics.of_copy(twin),
                steps=list(s.steps),
                counts=list(s.counts),
                edited=list(s.edited),
                _buffers={layer: b.copy() for layer, b in s._buffers.items()},
                _solvers={},
                _waiting={},
            )
            for setting, s in _STATES[model].items()
        }


def saved_states(model: torch.nn.Module) -> dict[str, dict]:
    """All that is bound to a model, for ``restore_states``: tensors and plain values.

    What methods keep must be dataclasses of such.
    """
    sequential = {setting: state.saved() for setting, state in _STATES.get(model, {}).items()}
    others = {
        key: {
            "class": f"{type(value).__module__}:{type(value).__qualname__}",
            "fields": {field.name: getattr(value, field.name) for field in dataclasses.fields(value)},
        }
        for key, value in _KEPT.get(model, {}).items()
    }
    return {"sequential": sequential, "kept": others, "origins": origins(model)}


def restore_states(view: ModelView, tok, hparams, saved: dict[str, dict]) -> None:
    """Gives a model the states of another process. It must have the weights from before the first edit; what
    the states say of the edited ones holds once those are in place."""
    if saved["sequential"]:
        _STATES[view.model] = {
            setting: SequentialState.restored(state, Statistics(view, tok, hparams))
            for setting, state in saved["sequential"].items()
        }
    set_origins(view.model, saved["origins"])
    for key, value in saved["kept"].items():
        module, _, name = value["class"].partition(":")
        if not module.startswith("easyedit_neuron."):
            raise StateError(f"the state keeps a {value['class']}, which is not of this package")
        kept(view.model)[key] = getattr(importlib.import_module(module), name)(**value["fields"])


def kept(model: torch.nn.Module) -> dict[str, Any]:
    """What methods keep with a model from one edit to the next, each under a key of its own; never changed,
    only replaced."""
    return _KEPT.setdefault(model, {})


def twin_of(view: ModelView, hparams) -> ModelView:
    """View of a deep copy of the model, which takes the model's state with it."""
    twin = copy.deepcopy(view.model)
    share(view.model, twin)
    return ModelView.of(twin, **hparams.module_overrides())


def commit(
    view: ModelView, deltas: Mapping[str, Delta], describe: Callable[[str], EditRecord]
) -> tuple[dict[str, torch.Tensor], EditRecord]:
    """Writes an edit and notes its record as the model's newest, or leaves the weights as they were.

    Args:
        view: the model.
        deltas: parameter name -> change.
        describe: makes the record from the fingerprint of the written parameters.

    Returns:
        ({parameter name: original tensor}, the record).
    """
    originals, known = write(view, deltas), origins(view.model)
    try:
        after, each = fingerprints((name, view.model.get_parameter(name)) for name in deltas)
        record = describe(after)
        newest, theirs = _NEWEST.get(view.model, ("", {}))
        # what the edit before has left is what this one has found: the weights need not be read once more
        come_from = note_edit(
            view.model, originals, each, theirs if newest == record.fingerprint_before else None
        )
        record.weights = {
            name: {
                "dtype": str(value.dtype).removeprefix("torch."),
                "shape": list(value.shape),
                "base": come_from[name][0],
                "before": come_from[name][1],
                "after": each[name],
            }
            for name, value in originals.items()
        }
        for listener in _LISTENERS.get(view.model, ()):
            listener(record)
    except BaseException:
        restore(view.model, originals)
        set_origins(view.model, known)
        raise
    remember(view.model, record)
    _NEWEST[view.model] = after, each
    return originals, record


def current_states(view: ModelView) -> dict[str, SequentialState]:
    """Setting -> state, of those that know the model's present weights as their newest."""
    found = {}
    for setting, state in _STATES.get(view.model, {}).items():
        if (
            fingerprint(view.model, down_names(view, state.statistics.layers))
            == (state.steps or [state.base])[-1]
        ):
            found[setting] = state
    return found


@contextmanager
def listening(model: torch.nn.Module, listener: Callable[[EditRecord], None]) -> Iterator[None]:
    """Inside the block ``listener`` is called with the record of every edit of the model; what it raises
    takes the edit back."""
    listeners = _LISTENERS.setdefault(model, [])
    listeners.append(listener)
    try:
        yield
    finally:
        listeners.remove(listener)


def remember(model: torch.nn.Module, record: EditRecord) -> None:
    """Notes the newest edit of a model."""
    _RECORDS[model] = record


def last_record(model: torch.nn.Module) -> EditRecord | None:
    """Record of the newest edit of a model, or None if there was none.

    It stays until the next edit notices that a host has taken the edit back: EasyEdit does so before a caller
        could ask.
    """
    return _RECORDS.get(model)


def forget(model: torch.nn.Module) -> None:
    """Drops all sequential state of a model; its next edit is a first edit."""
    _STATES.pop(model, None)
    _RECORDS.pop(model, None)
    _KEPT.pop(model, None)
    set_origins(model, {})
