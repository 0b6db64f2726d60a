"""State of a sequence of locate-then-edit calls: protected keys, solvers, contexts and statistics.

A state belongs to a model object and to its weights. Each edit appends the fingerprint of the edited weights,
and the next edit looks up the present fingerprint among them. If a host has put earlier weights back
(EasyEdit does, after every non-sequential edit), the keys of the undone edits are dropped.
"""

from __future__ import annotations

import dataclasses
import importlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ..arch.chat import plain_tokenizer
from ..arch.view import ModelView
from ..arch.widen import own_width
from ..edits.record import Factors
from ..edits.request import EditRequest, Fact
from ..edits.session import ModelSession
from ..edits.write import down_names, fingerprint
from ..errors import StateError
from ..hyperparameters.base import distinguishing
from ..statistics.cache import Statistics
from ..utils.fingerprint import key_fingerprint
from .context_templates import contexts_of
from .solver.compensation import Compensation
from .solver.key_buffer import KeyBuffer
from .solver.sequential import SequentialSolver

LOG = logging.getLogger(__name__)
GONE = "gone:"
"""Prefix of a step whose weights cannot come back, because an edit before it has been undone."""

METHOD_STATES = (
    "easyedit_neuron.models.kne.shared:SharedScores",
    "easyedit_neuron.models.lasting.state:LastingState",
)
"""The classes of which a method may keep an object (``ModelSession.method_state``)."""

SETTING_FIELDS = (
    "layers",
    "context_prompts",
    "context_length",
    "context_templates",
    "mom2_dataset",
    "mom2_n_samples",
    "mom2_dtype",
    "mom2_max_length",
    "mom2_cut",
    "mom2_name_share",
    "mom2_names",
    "mom2_file",
    "nullspace_file",
    "stats_dir",
    "seed",
    "easyedit_quirks",
    "context_template_length_params",
    "mom2_adjustment",
)
"""Hyperparameters that the state depends on; another value starts another state."""


@dataclass
class SequentialState:
    """State of one model under one setting of layers, statistics and contexts.

    Attributes:
        base: fingerprint of the edited weights before the first edit.
        contexts: groups of context templates.
        statistics: covariances and null spaces of the unedited model.
        steps: fingerprint after each edit, or after one was taken back.
        counts: number of keys that each step added to every layer's buffer (0 where earlier edits are not
            protected).
        edited: the facts of each step's requests.
        compensations: layer -> what masks have cut off and no edit has written (``error_compensation``).
    """

    base: str
    contexts: list[list[str]]
    statistics: Statistics
    steps: list[str] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    edited: list[list[Fact]] = field(default_factory=list)
    compensations: dict[int, Compensation] = field(default_factory=dict)
    _buffers: dict[int, KeyBuffer] = field(default_factory=dict)
    _solvers: dict[int, tuple[tuple, SequentialSolver]] = field(default_factory=dict)
    _saved_solvers: dict[int, dict] = field(default_factory=dict)  # of a restored state, not used yet

    def buffer(self, layer: int) -> KeyBuffer:
        """Keys M [d_ff, m] of all edits that are in the weights, each on the weights after its edit."""
        if layer not in self._buffers:
            view = self.statistics.view
            self._buffers[layer] = KeyBuffer(own_width(view), view.device_of(layer), view.compute_dtype)
        return self._buffers[layer]

    def compensation(self, layer: int) -> Compensation:
        """What masks have cut off from a layer's deltas; empty at first."""
        view = self.statistics.view
        like = torch.empty(0, dtype=view.compute_dtype, device=view.device_of(layer))
        return self.compensations.get(layer) or Compensation.none(view.d_model, own_width(view), like)

    def solver(self, layer: int, setting: tuple) -> SequentialSolver | None:
        """The solver of a layer for the problem that ``setting`` describes; None if it must be added."""
        stored_setting, solver = self._solvers.get(layer, (None, None))
        if stored_setting == setting:
            return solver
        self._solvers.pop(layer, None)  # frees its memory before another is made
        return None

    def add_solver(self, layer: int, setting: tuple, solver: SequentialSolver) -> SequentialSolver:
        """Add a new solver; if the state was restored, the solver takes over what was saved for it."""
        self._solvers[layer] = setting, solver
        saved = self._saved_solvers.pop(layer, None)
        if saved is not None and saved["setting"] == list(setting):
            solver.restore(saved["solver"])
        return solver

    @property
    def held_bytes(self) -> dict[str, int]:
        """Bytes that grow with the number of edits: ``keys`` of the buffers, ``solvers``,
        ``compensations``."""
        return {
            "keys": sum(buffer.held_bytes for buffer in self._buffers.values()),
            "solvers": sum(solver.held_bytes for _, solver in self._solvers.values()),
            "compensations": sum(each.held_bytes for each in self.compensations.values()),
        }

    def append_edit(
        self, after: str, keys: dict[int, torch.Tensor], requests: Sequence[EditRequest] = ()
    ) -> None:
        """Append an edit that has been written.

        ``keys`` maps layers to K [d_ff, n], which later edits protect; empty: nothing is protected.
        """
        for layer, columns in keys.items():
            self.buffer(layer).append(columns)
        self.steps.append(after)
        self.counts.append(next((columns.shape[1] for columns in keys.values()), 0))
        self.edited.append([request.fact for request in requests])

    def cut_off(self, changes: dict[int, Factors], sign: int = 1) -> None:
        """Add, layer by layer, what masks cut off from an edit that was put back into the weights (-1: taken
        out); the state's newest step has these weights."""
        for layer, (values, keys) in changes.items():
            change = sign * values, keys
            self.compensations[layer] = self.compensation(layer).added(change, len(self.steps))

    def remove_edit(self, after: str, present: str) -> bool:
        """Forget one edit that has been taken out of the weights; False if the state does not have it.

        Args:
            after: fingerprint of the weights right after that edit, which identifies it.
            present: fingerprint of the weights now. The weights of later steps no longer exist, so a host can
                only put back ``present`` or the weights of steps before the edit.
        """
        matches = [number for number, step in enumerate(self.steps) if step.removeprefix(GONE) == after]
        if not matches:
            self.append_edit(present, {})
            return False
        number = matches[-1]
        start, count = sum(self.counts[:number]), self.counts[number]
        for buffer in self._buffers.values() if count else ():
            buffer.remove(start, start + count)
        del self.steps[number], self.counts[number], self.edited[number]
        for layer, compensation in self.compensations.items():
            self.compensations[layer] = compensation.without_step(number + 1)
        self.steps[number:] = [step if step.startswith(GONE) else GONE + step for step in self.steps[number:]]
        self.append_edit(present, {})
        return True

    def sync_with_weights(self, present: str, stale_keys: bool = False) -> bool:
        """Drop the edits that are no longer in the weights; False if no step of the state has these weights.

        ``stale_keys`` leaves their keys in the buffers, as EasyEdit does.
        """
        history = [self.base, *self.steps]
        if present not in history:
            return False
        count = len(history) - 1 - history[::-1].index(present)
        if count < len(self.steps):
            LOG.info("earlier weights were put back: %d edit(s) forgotten", len(self.steps) - count)
            del self.steps[count:], self.counts[count:], self.edited[count:]
            for buffer in () if stale_keys else self._buffers.values():
                buffer.truncate(sum(self.counts))
            for layer, compensation in self.compensations.items():
                self.compensations[layer] = compensation.truncated(count)
        return True

    def copy_for(self, twin: torch.nn.Module) -> SequentialState:
        """An independent state for a deep copy of the model, without solvers."""
        return dataclasses.replace(
            self,
            statistics=self.statistics.of_copy(twin),
            steps=list(self.steps),
            counts=list(self.counts),
            edited=list(self.edited),
            compensations=dict(self.compensations),
            _buffers={layer: buffer.copy() for layer, buffer in self._buffers.items()},
            _solvers={},
            _saved_solvers={},
        )

    def saved(self) -> dict[str, Any]:
        """Tensors and plain values for ``restored``; the statistics have files of their own."""
        solvers = self._saved_solvers | {
            layer: {"setting": list(setting), "solver": solver.saved()}
            for layer, (setting, solver) in self._solvers.items()
        }
        return {
            "base": self.base,
            "contexts": self.contexts,
            "steps": self.steps,
            "counts": self.counts,
            "edited": self.edited,
            "compensations": {str(layer): each.saved() for layer, each in self.compensations.items()},
            "buffers": {str(layer): buffer.saved() for layer, buffer in self._buffers.items()},
            "solvers": {str(layer): solver for layer, solver in solvers.items()},
            "statistics": self.statistics.held(),
        }

    @classmethod
    def restored(cls, saved: dict[str, Any], statistics: Statistics) -> SequentialState:
        """The state that was saved; ``statistics`` are those of the unedited weights."""
        statistics.hold(saved["statistics"])
        return cls(
            saved["base"],
            saved["contexts"],
            statistics,
            list(saved["steps"]),
            list(saved["counts"]),
            [[tuple(fact) for fact in facts] for facts in saved["edited"]],
            {
                int(layer): Compensation.restored(each)
                for layer, each in saved.get("compensations", {}).items()
            },
            {int(layer): KeyBuffer.restored(buffer) for layer, buffer in saved["buffers"].items()},
            _saved_solvers={int(layer): solver for layer, solver in saved["solvers"].items()},
        )


def state_setting(hparams) -> str:
    """Fingerprint of the hyperparameters that the sequential state depends on."""
    return key_fingerprint(distinguishing({name: getattr(hparams, name) for name in SETTING_FIELDS}))


def sequential_state(
    view: ModelView, tok, hparams, contexts: list[list[str]] | None = None
) -> tuple[SequentialState, str]:
    """The model's state under ``hparams``, and the present fingerprint of the edited weights.

    Weights that no step of the state produced start a new state. It takes ``contexts``, or templates that the
    model writes.
    """
    session, setting = ModelSession.of(view.model), state_setting(hparams)
    present = fingerprint(view.model, down_names(view, hparams.layers))
    state = session.sequential_states.get(setting)
    if state is not None:
        steps = len(state.steps)
        if not state.sync_with_weights(present, hparams.has_quirk("stale_keys")):
            LOG.warning("the weights were changed from outside: earlier edits are no longer protected")
            state = None
        elif len(state.steps) < steps:
            session.newest_record = None
    if state is None:
        tok = plain_tokenizer(tok)
        contexts = contexts_of(view.model, tok, hparams) if contexts is None else contexts
        state = SequentialState(present, contexts, Statistics(view, tok, hparams))
    session.sequential_states.pop(setting, None)
    session.sequential_states[setting] = state  # the state used last is at the end
    return state, present


def current_states(view: ModelView) -> dict[str, SequentialState]:
    """Setting -> state, of the states whose newest step has the model's present weights."""
    return {
        setting: state
        for setting, state in ModelSession.of(view.model).sequential_states.items()
        if fingerprint(view.model, down_names(view, state.statistics.layers))
        == [state.base, *state.steps][-1]
    }


def saved_session(model: torch.nn.Module) -> dict[str, dict]:
    """A model's session as tensors and plain values for ``restore_session``.

    The values in ``method_state`` must be dataclasses of tensors and plain values.
    """
    session = ModelSession.of(model)
    method_state = {
        key: {
            "class": f"{type(value).__module__}:{type(value).__qualname__}",
            "fields": {field.name: getattr(value, field.name) for field in dataclasses.fields(value)},
        }
        for key, value in session.method_state.items()
    }
    sequential = {setting: state.saved() for setting, state in session.sequential_states.items()}
    return {"sequential": sequential, "kept": method_state, "origins": session.origins_copy()}


def restore_session(view: ModelView, tok, hparams, saved: dict[str, dict]) -> None:
    """Give a model the session of another process.

    The model must have the weights from before the first edit. The session is valid once the edited weights
    are in place.
    """
    session = ModelSession.of(view.model)
    for setting, state in saved["sequential"].items():
        statistics = Statistics(view, tok, hparams)
        session.sequential_states[setting] = SequentialState.restored(state, statistics)
    session.origins = {name: list(history) for name, history in saved["origins"].items()}
    for key, value in saved["kept"].items():
        session.method_state[key] = _restored_method_state(value)


def _restored_method_state(saved: dict[str, Any]) -> Any:
    """What a method keeps, from a file: only the classes of ``METHOD_STATES`` can be made."""
    if saved.get("class") not in METHOD_STATES:
        raise StateError(f"the saved state has a {saved.get('class')!r}, which no method keeps")
    module, _, name = saved["class"].partition(":")
    try:
        return getattr(importlib.import_module(module), name)(**saved["fields"])
    except (KeyError, TypeError) as problem:
        raise StateError(f"the saved state of {saved['class']} is damaged: {problem}") from None
