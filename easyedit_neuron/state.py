"""The sequential state of a model: keys of earlier edits, contexts and statistics. No module keeps a method's state.

It is bound to the model object and to its weights: after each edit the fingerprint of the edited weights is noted, and
before the next one the model's present fingerprint is looked up. If a host has put earlier weights back (EasyEdit does, after every
non-sequential edit), the keys of the edits that are gone are dropped with them.
"""

import dataclasses
import logging
import weakref
from dataclasses import dataclass, field

import torch

from .arch.view import ModelView
from .record import EditRecord
from .stats.cache import Statistics
from .write import fingerprint

LOG = logging.getLogger(__name__)


@dataclass
class SequentialState:
    """State of one model under one setting of layers, statistics and contexts.

    Attributes:
        base: fingerprint of the edited weights before the first edit.
        steps: fingerprints after each edit.
        keys: per edit, layer -> keys K [d_ff, n] on the weights after that edit.
        contexts: groups of context templates.
        statistics: covariances and null spaces of the unedited model.
        last_record: record of the newest edit, None once it has been taken back.
    """

    base: str
    contexts: list[list[str]]
    statistics: Statistics
    steps: list[str] = field(default_factory=list)
    keys: list[dict[int, torch.Tensor]] = field(default_factory=list)
    last_record: EditRecord | None = None

    def earlier_keys(self, layer: int) -> torch.Tensor | None:
        """M [d_ff, m], the keys of all edits that are in the weights, or None."""
        return torch.cat([keys[layer] for keys in self.keys], 1) if self.keys else None

    def note(self, after: str, keys: dict[int, torch.Tensor], record: EditRecord) -> None:
        """Appends an edit that has been written."""
        self.steps.append(after)
        self.keys.append(keys)
        self.last_record = record

    def follow(self, present: str) -> bool:
        """Drops the edits that are no longer in the weights; False if the weights are of no known step."""
        known = [self.base] + self.steps
        if present not in known:
            return False
        at = len(known) - 1 - known[::-1].index(present)
        if at < len(self.steps):
            LOG.info("earlier weights were put back: %d edit(s) forgotten", len(self.steps) - at)
            del self.steps[at:], self.keys[at:]
            self.last_record = None
        return True


_STATES: "weakref.WeakKeyDictionary[torch.nn.Module, dict[str, SequentialState]]" = weakref.WeakKeyDictionary()


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
    present = fingerprint(view, layers)
    states = _STATES.setdefault(view.model, {})
    state = states.get(setting)
    if state is None or not state.follow(present):
        if state is not None:
            LOG.warning("the weights were changed from outside: earlier edits are no longer protected")
        state = SequentialState(present, make_contexts(), Statistics(view, tok, hparams))
    states.pop(setting, None)
    states[setting] = state  # the newest is the last
    return state, present


def share(model: torch.nn.Module, twin: torch.nn.Module) -> None:
    """Gives a deep copy of a model the model's state: the earlier edits are in its weights too."""
    if model in _STATES:
        _STATES[twin] = {
            setting: dataclasses.replace(s, statistics=s.statistics.of_copy(twin), steps=list(s.steps), keys=list(s.keys))
            for setting, s in _STATES[model].items()}


def last_record(model: torch.nn.Module) -> EditRecord | None:
    """Record of the newest edit of a model, or None if there was none or it has been taken back."""
    records = [s.last_record for s in _STATES.get(model, {}).values() if s.last_record is not None]
    return records[-1] if records else None


def forget(model: torch.nn.Module) -> None:
    """Drops all sequential state of a model; its next edit is a first edit."""
    _STATES.pop(model, None)
