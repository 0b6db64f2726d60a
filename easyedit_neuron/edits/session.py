"""Everything that belongs to one model object between its edits. No module and no method keeps such state
elsewhere."""

from __future__ import annotations

import copy
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from ..arch.view import ModelView
from ..utils.fingerprint import fingerprints, tensors_fingerprint
from .record import EditRecord
from .write import restore, write

Listener = Callable[[EditRecord], None]


@dataclass
class ModelSession:
    """What the package remembers of one model object; it lives as long as the model does.

    Attributes:
        origins: parameter name -> the fingerprints that it has had, the one before any edit first.
        sequential_states: setting -> ``locate_then_edit.SequentialState``, the one used last at the end.
        method_state: what methods keep from one edit to the next, by key. Values are replaced, never changed.
        newest_record: record of the newest edit. A host may have taken the edit back since.
        newest_weights: fingerprint of the parameters that the newest edit wrote, together and of each.
        listeners: called with the record of every edit; what one raises takes the edit back.
        cache: what can be computed or loaded again, by key. Neither saved nor copied.
    """

    origins: dict[str, list[str]] = field(default_factory=dict)
    sequential_states: dict[str, Any] = field(default_factory=dict)
    method_state: dict[str, Any] = field(default_factory=dict)
    newest_record: EditRecord | None = None
    newest_weights: tuple[str, dict[str, str]] = ("", {})
    listeners: list[Listener] = field(default_factory=list)
    cache: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, model: torch.nn.Module) -> ModelSession:
        """The session of a model, a new one where there is none."""
        return _SESSIONS.setdefault(model, cls())

    def copy_for(self, twin: torch.nn.Module) -> None:
        """Give a deep copy of the model this session: the earlier edits are in its weights too."""
        states = {setting: state.copy_for(twin) for setting, state in self.sequential_states.items()}
        _SESSIONS[twin] = ModelSession(
            self.origins_copy(), states, dict(self.method_state), self.newest_record, self.newest_weights
        )

    def origins_copy(self) -> dict[str, list[str]]:
        """An independent copy of ``origins``, to go back to if an edit fails."""
        return {name: list(history) for name, history in self.origins.items()}

    def note_edit(
        self,
        originals: Mapping[str, torch.Tensor],
        after: Mapping[str, str],
        before: Mapping[str, str] | None = None,
    ) -> dict[str, tuple[str, str]]:
        """Note in ``origins`` that an edit has been written.

        Args:
            originals: parameter name -> value before the edit. A value that is not in the parameter's history
                (the weights were changed from outside) begins a new one. A value that is there has come back
                (EasyEdit puts weights back): what followed it is forgotten.
            after: parameter name -> fingerprint now.
            before: fingerprints of ``originals``; computed where they are not given.

        Returns:
            Parameter name -> (fingerprint before its first edit, fingerprint before this one).
        """
        base_and_before = {}
        for name, value in originals.items():
            present = before[name] if before else tensors_fingerprint([(name, value)])
            history = self.origins.setdefault(name, [])
            length = len(history) - history[::-1].index(present) if present in history else 0
            history[length:] = [after[name]] if length else [present, after[name]]
            base_and_before[name] = history[0], present
        return base_and_before

    def note_change(self, model: torch.nn.Module, names: Iterable[str]) -> None:
        """Note that parameters were changed on purpose other than by an edit (one was taken back)."""
        for name in names:
            present = tensors_fingerprint([(name, model.get_parameter(name))])
            self.origins.setdefault(name, []).append(present)


_SESSIONS: weakref.WeakKeyDictionary[torch.nn.Module, ModelSession] = weakref.WeakKeyDictionary()


def commit(view: ModelView, record: EditRecord) -> dict[str, torch.Tensor]:
    """Write the changes of a record and note it as the model's newest edit; on any error nothing has changed.

    Fills in the record's fingerprints (``fingerprint_before``, ``fingerprint_after``, ``weights``) and adds
    the time to ``seconds["write"]``.

    Returns:
        {parameter name: original tensor} of all changed parameters.
    """
    started = time.perf_counter()
    session, deltas = ModelSession.of(view.model), record.deltas
    originals, origins = write(view, deltas), session.origins_copy()
    try:
        after, after_each = fingerprints((name, view.model.get_parameter(name)) for name in deltas)
        # What the newest edit left is what this one found: then the weights need not be read once more.
        newest, newest_each = session.newest_weights
        history = session.note_edit(
            originals, after_each, newest_each if newest == record.fingerprint_before else None
        )
        record.fingerprint_after = after
        record.weights = {
            name: {
                "dtype": str(value.dtype).removeprefix("torch."),
                "shape": list(value.shape),
                "base": history[name][0],
                "before": history[name][1],
                "after": after_each[name],
            }
            for name, value in originals.items()
        }
        record.seconds["write"] = time.perf_counter() - started
        for listener in session.listeners:
            listener(record)
    except BaseException:
        restore(view.model, originals)
        session.origins = origins
        raise
    session.newest_record, session.newest_weights = record, (after, after_each)
    return originals


def copy_of(view: ModelView, hparams) -> ModelView:
    """View of a deep copy of the model, which takes the model's session with it."""
    twin = copy.deepcopy(view.model)
    ModelSession.of(view.model).copy_for(twin)
    return ModelView.of(twin, **hparams.module_overrides())


@contextmanager
def listening(model: torch.nn.Module, listener: Listener) -> Iterator[None]:
    """Call ``listener`` with the record of every edit of the model inside the block."""
    listeners = ModelSession.of(model).listeners
    listeners.append(listener)
    try:
        yield
    finally:
        listeners.remove(listener)


def last_record(model: torch.nn.Module) -> EditRecord | None:
    """Record of the newest edit of a model, or None if there was none.

    It stays until the next edit notices that a host has taken the edit back: EasyEdit does so before a caller
    could ask.
    """
    return ModelSession.of(model).newest_record


def forget(model: torch.nn.Module) -> None:
    """Drop everything that is remembered of a model's edits; its next edit is a first edit."""
    session = ModelSession.of(model)
    _SESSIONS[model] = ModelSession(listeners=session.listeners, cache=session.cache)
