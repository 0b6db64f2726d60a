"""Make an edited model again from the base model and a log."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from ..arch.view import eval_mode
from ..arch.widen import view_of_grown
from ..edits.record import EditRecord, Factors
from ..edits.request import prepare
from ..edits.session import ModelSession
from ..edits.write import clone_weights, down_names, fingerprint, restore
from ..errors import StateError
from ..locate_then_edit.sequential_state import SequentialState, sequential_state, state_setting
from ..models.lasting.lasting_hparams import LastingHyperParams
from ..models.lasting.state import LastingState
from ..utils.fingerprint import fingerprints
from .log import EditLog
from .undoing import change_weights, cut_off, protected_keys, sequential_hparams, view_of

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Replayed:
    """The result of ``replay``: the edits that are in the weights now, in the order in which they were added.

    ``exact``: the weights are those of the log, bit for bit; None for a selection. ``state``: the model has
    its sequential state: the next edit protects the keys of those in the weights.
    """

    ids: list[int]
    exact: bool | None
    state: bool


def replay(
    log: EditLog,
    model: torch.nn.Module,
    tok=None,
    *,
    upto: int | None = None,
    only: Iterable[int] | None = None,
    without: Iterable[int] = (),
    into: EditLog | None = None,
) -> Replayed:
    """Make the edits of a log on the base model.

    The same changes are added (and taken out) in the same order and dtype as before. On the same kind of
    machine the weights are those of the log bit for bit. Elsewhere a product of factors may round
    differently.

    Args:
        log: the log. Every file that is used is checked.
        model: the base model, changed in place.
        tok: its tokenizer. With it the sequential state is made again too: contexts and keys from the
            records, statistics of the base model from their cache (measured if they are not cached). So is
            Lasting's state: the next edit is then the one that it would be without the replay.
        upto: entry to stop after (0: nothing is done).
        only, without: ids of the edits to make, or to leave out, of those in the weights after ``upto``. What
            the others wrote was computed with those left out in place, and stays as it is.
        into: a new log for the edits that are made, with the fingerprints that they have here.

    Raises:
        StateError: not the base model, an unknown id, a missing or changed file; the model is as it was.
    """
    without = tuple(without)
    selected = only is not None or bool(without)
    steps, ids = log.steps(upto), log.ids_at(upto)
    log_ids = list(dict.fromkeys(number for _, number in steps))
    if selected:
        ids = _select(log, ids, only, without)
        steps = [(1, number) for number in ids]
    log.base.check(model)

    names = list(log.base.weights)
    session = ModelSession.of(model)
    originals, known_origins = clone_weights(model, names), session.origins_copy()
    state: SequentialState | None = None
    lasting: tuple[LastingState, LastingHyperParams] | None = None
    state_edits: dict[int, tuple] = {}
    cut_offs: dict[int, dict[int, Factors]] = {}
    try:
        if tok is not None and steps:
            records = [log[number] for number in log_ids]
            state, lasting = _new_state(records, model, tok), _lasting_state(records, model, tok)
        for sign, number in steps:
            record = log[number]
            before = change_weights(view_of(model, record), record, sign)
            if state is not None:
                requests = prepare(record.requests)
                state_edits[number] = record.fingerprint_after, protected_keys(record), requests
                cut_offs[number] = cut_off(record)
            if into is not None:
                _append(into, model, record, before)
    except BaseException:
        restore(model, originals)
        session.origins = known_origins
        raise

    # Note the edits in what is bound to the model, now that none can fail any more.
    after = fingerprints((name, model.get_parameter(name)) for name in names)[1]
    if into is None:
        session.note_edit(originals, after)
    if state is not None:
        for number in ids:
            state.append_edit(*state_edits[number])
        state.append_edit(fingerprint(model, down_names(state.statistics.view, state.statistics.layers)), {})
        for number in ids:
            state.cut_off(cut_offs[number])
    if lasting is not None:
        lasting[0].follow(view_of_grown(model), lasting[1], _of_lasting(log[number] for number in ids))
    exact = None if selected else after == log.weights_at(upto)
    if exact is False and None not in log.weights_at(upto).values():
        reason = "it was written on another kind of machine, or with another version of torch"
        LOG.warning("%s: the weights differ from the log's by rounding: %s", log.folder, reason)
    return Replayed(ids, exact, state is not None)


def _select(log: EditLog, ids: list[int], only: Iterable[int] | None, without: tuple[int, ...]) -> list[int]:
    only = ids if only is None else list(only)
    for number in (*only, *without):
        log.edit_entry(number)
        if number not in ids:
            raise StateError(
                f"{log.folder}: edit {number} is not in the weights there (it was undone, or made later); in "
                f"them are {', '.join(map(str, ids)) or 'none'}"
            )
    return [number for number in ids if number in only and number not in without]


def _append(
    into: EditLog, model: torch.nn.Module, record: EditRecord, before: dict[str, torch.Tensor]
) -> None:
    """Append the record with the fingerprints of the weights here, before and after it."""
    record.fingerprint_before = fingerprints(before.items())[0]
    record.fingerprint_after, after = fingerprints((name, model.get_parameter(name)) for name in before)
    for name, (base, present) in ModelSession.of(model).note_edit(before, after).items():
        record.weights[name] |= {"base": base, "before": present, "after": after[name]}
    into.append(record)


def _of_lasting(records: Iterable[EditRecord]) -> list[EditRecord]:
    return [record for record in records if record.method == LastingHyperParams.ALG_NAME]


def _lasting_state(
    records: list[EditRecord], model: torch.nn.Module, tok
) -> tuple[LastingState, LastingHyperParams] | None:
    """What Lasting knows of the unedited model under the settings of its newest edit, and these settings."""
    own = _of_lasting(records)
    if not own:
        return None
    hparams = LastingHyperParams.from_dict(own[-1].hparams)
    with eval_mode(model):
        return LastingState.of(view_of(model, own[-1]), tok, hparams), hparams


def _new_state(records: list[EditRecord], model: torch.nn.Module, tok) -> SequentialState | None:
    """The state of the unedited model under the settings of the edits; None where they share none."""
    hparams_of = [sequential_hparams(record) for record in records]
    sequential = [(record, hparams) for record, hparams in zip(records, hparams_of) if hparams is not None]
    if not sequential:
        LOG.info("the edits have no sequential state")
        return None
    first_record, newest_hparams = sequential[0][0], sequential[-1][1]
    setting = state_setting(newest_hparams)
    view = view_of(model, records[-1])
    state_weights = set(down_names(view, newest_hparams.layers))
    if any(
        state_weights & record.deltas.keys() and (hparams is None or state_setting(hparams) != setting)
        for record, hparams in zip(records, hparams_of)
    ):
        LOG.warning(
            "edits under other settings changed the same weights, so the sequential state is not made again; "
            "the next edit begins a new one"
        )
        return None

    texts = iter(first_record.contexts)
    contexts = [[next(texts) for _ in range(count)] for count in first_record.context_groups] or None
    with eval_mode(model):
        state, _ = sequential_state(view, tok, newest_hparams, contexts)
        state.statistics.ready()  # now, while the weights are the base's
    return state
