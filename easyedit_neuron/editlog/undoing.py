"""Taking a single edit out of the weights, and putting it back in."""

from __future__ import annotations

import torch

from ..arch.view import ModelView
from ..edits.record import EditRecord
from ..edits.request import prepare
from ..edits.session import ModelSession
from ..edits.write import down_names, fingerprint, restore, write
from ..errors import StateError
from ..hyperparameters.model import MODULE_FIELDS
from ..locate_then_edit.hparams import PathHyperParams
from ..locate_then_edit.sequential_state import SequentialState, current_states, state_setting
from ..registry import get_method
from ..utils.fingerprint import tensors_fingerprint
from .log import EditLog


def undo(model: torch.nn.Module, log: EditLog, number: int) -> int:
    """Takes an edit out of the weights, wherever in the sequence it was made; the log has an entry of it.

    ``W <- W - delta`` in float32, rounded once to the weight's dtype: the weights of an edit that was the
    newest come back up to that rounding (``replay`` up to the entry before it gives them bit for bit). In the
    model's sequential state the keys of the edit are gone, so that the next edit is solved as if it had never
    been made; what the edits behind it wrote stays as they wrote it.

    Args:
        model: has the weights that the newest entry of the log left; changed in place.
        log: of its edits.
        number: id of an edit.

    Returns:
        Id of the entry.

    Raises:
        StateError: another model, no such edit, one that is not in the weights, a file of the log that is
            missing or was changed; nothing is changed then.
    """
    line = log.line(number)
    if number not in log.ids:
        raise StateError(
            f"{log.folder}: edit {number} is not in the weights any more: {_why_gone(log, line)}"
        )
    return _change(model, log, number, -1)


def redo(model: torch.nn.Module, log: EditLog, number: int) -> int:
    """Puts an edit back in that was taken out; it is then the newest, and its keys are protected from later
    edits again.

    Arguments and errors as for ``undo``.
    """
    log.line(number)
    if number in log.ids:
        raise StateError(f"{log.folder}: edit {number} is in the weights")
    return _change(model, log, number, 1)


def view_of(model: torch.nn.Module, record: EditRecord) -> ModelView:
    """The model as the record's hyperparameters name its modules."""
    return ModelView.of(
        model,
        **{name: record.hparams[name] for name in MODULE_FIELDS if record.hparams.get(name) is not None},
    )


def settings_of(record: EditRecord) -> PathHyperParams | None:
    """The record's hyperparameters, if its method has a sequential state."""
    hparams = get_method(record.hparams["alg_name"]).load_hparams()
    return hparams.from_dict(record.hparams) if issubclass(hparams, PathHyperParams) else None


def change_weights(view: ModelView, record: EditRecord, sign: int) -> dict[str, torch.Tensor]:
    """Adds the record's changes (1) or takes them out (-1); returns the parameters as they were."""
    deltas = {name: delta.to(view.matrix(name).device) for name, delta in record.deltas.items()}
    return write(view, deltas if sign > 0 else {name: delta.negated() for name, delta in deltas.items()})


def keys_of(record: EditRecord) -> dict[int, torch.Tensor]:
    """Layer -> keys that later edits have to protect."""
    return {layer: delta.keys for layer, delta in record.layers.items() if delta.keys is not None}


def _change(model: torch.nn.Module, log: EditLog, number: int, sign: int) -> int:
    record = log[number]
    log.check_weights(model)
    view, hparams = view_of(model, record), settings_of(record)
    current = current_states(view)
    originals = change_weights(view, record, sign)
    try:
        after = {name: tensors_fingerprint([(name, model.get_parameter(name))]) for name in originals}
        entry = log.note("undo" if sign < 0 else "redo", after, of=number)
    except BaseException:
        restore(model, originals)
        raise
    ModelSession.of(model).note_change(model, originals)
    mine = None if hparams is None else state_setting(hparams)
    for setting, state in current.items():
        _follow(state, view, record, sign, setting == mine)
    return entry


def _follow(state: SequentialState, view: ModelView, record: EditRecord, sign: int, mine: bool) -> None:
    present = fingerprint(view.model, down_names(view, state.statistics.layers))
    if sign < 0:
        state.remove_edit(record.fingerprint_after, present)
    else:
        state.append_edit(record.fingerprint_after, keys_of(record) if mine else {}, prepare(record.requests))
        state.append_edit(present, {})  # the step before is the edit, so that it can be taken out again


def _why_gone(log: EditLog, line: dict) -> str:
    back = [entry for entry in log.entries if entry["type"] == "undo" and entry["of"] == line["id"]]
    if back:
        return f"entry {back[-1]['id']} took it back"
    return "earlier weights were put back after it"
