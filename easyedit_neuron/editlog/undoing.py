"""Take a single edit out of the weights, and put it back."""

import torch

from ..arch.view import ModelView
from ..edits.record import EditRecord, Factors
from ..edits.request import prepare
from ..edits.session import ModelSession
from ..edits.write import down_names, fingerprint, restore, write
from ..errors import StateError
from ..hyperparameters.base import MODULE_FIELDS
from ..locate_then_edit.hparams import PathHyperParams
from ..locate_then_edit.sequential_state import current_states, state_setting
from ..registry import get_method
from ..utils.fingerprint import fingerprints
from .log import EditLog


def undo(model: torch.nn.Module, log: EditLog, number: int) -> int:
    """Take an edit out of the weights, wherever in the sequence it was made, and log that; the new entry's
    id.

    ``W <- W - delta`` in float32, rounded once to the weight's dtype. Undoing the newest edit thus gives the
    earlier weights up to that rounding (``replay`` up to the entry before it gives them bit for bit). The
    model's sequential state loses the keys of the edit: the next edit is solved as if it had never been made.
    What later edits wrote stays as they wrote it. ``StateError``, before anything is changed, for another
    model than the newest entry left, or an edit that is not in the weights.
    """
    log.edit_entry(number)
    if number not in log.ids:
        undone = [entry["id"] for entry in log.entries if entry["type"] == "undo" and entry["of"] == number]
        reason = f"entry {undone[-1]} took it back" if undone else "earlier weights were put back after it"
        raise StateError(f"{log.folder}: edit {number} is not in the weights any more: {reason}")
    return _apply_step(model, log, number, -1)


def redo(model: torch.nn.Module, log: EditLog, number: int) -> int:
    """Put an edit back that was undone.

    It is then the newest, and later edits protect its keys again. Arguments and errors as for ``undo``.
    """
    log.edit_entry(number)
    if number in log.ids:
        raise StateError(f"{log.folder}: edit {number} is in the weights")
    return _apply_step(model, log, number, 1)


def view_of(model: torch.nn.Module, record: EditRecord) -> ModelView:
    """View of the model with the module names of the record's hyperparameters."""
    fields = {name: record.hparams.get(name) for name in MODULE_FIELDS}
    return ModelView.of(model, **{name: value for name, value in fields.items() if value is not None})


def sequential_hparams(record: EditRecord) -> PathHyperParams | None:
    """The record's hyperparameters, if its method has a sequential state."""
    hparams_class = get_method(record.hparams["alg_name"]).load_hparams()
    return hparams_class.from_dict(record.hparams) if issubclass(hparams_class, PathHyperParams) else None


def change_weights(view: ModelView, record: EditRecord, sign: int) -> dict[str, torch.Tensor]:
    """Add the record's changes (1) or take them out (-1); return copies of the parameters as they were."""
    deltas = {name: delta.to(view.matrix(name).device) for name, delta in record.deltas.items()}
    return write(view, deltas if sign > 0 else {name: delta.negated() for name, delta in deltas.items()})


def protected_keys(record: EditRecord) -> dict[int, torch.Tensor]:
    """Layer -> keys that later edits have to protect."""
    return {layer: delta.keys for layer, delta in record.layers.items() if delta.keys is not None}


def cut_off(record: EditRecord) -> dict[int, Factors]:
    """Layer -> what masks have cut off, for the compensation by later edits."""
    changes = {layer: delta.cut_off for layer, delta in record.layers.items()}
    return {layer: change for layer, change in changes.items() if change is not None}


def _apply_step(model: torch.nn.Module, log: EditLog, number: int, sign: int) -> int:
    record = log[number]
    log.check_weights(model)
    view, hparams = view_of(model, record), sequential_hparams(record)
    states = current_states(view)
    originals = change_weights(view, record, sign)
    try:
        after = fingerprints((name, model.get_parameter(name)) for name in originals)[1]
        entry_id = log.append_event("undo" if sign < 0 else "redo", after, of=number)
    except BaseException:
        restore(model, originals)
        raise
    ModelSession.of(model).note_change(model, originals)
    setting = None if hparams is None else state_setting(hparams)
    for state_key, state in states.items():
        present = fingerprint(model, down_names(view, state.statistics.layers))
        if sign < 0:
            if state.remove_edit(record.fingerprint_after, present):
                state.cut_off(cut_off(record), -1)
        else:
            keys = protected_keys(record) if state_key == setting else {}
            state.append_edit(record.fingerprint_after, keys, prepare(record.requests))
            state.append_edit(present, {})  # a step of its own: the edit's step can then be taken out again
            state.cut_off(cut_off(record) if state_key == setting else {})
    return entry_id
