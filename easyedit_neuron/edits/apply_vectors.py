"""From EasyEdit's call to weights and back: the part that methods which train single rows or columns
share."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..arch.frozen import eval_mode
from ..arch.tokens import check_vocabulary
from ..arch.view import ModelView
from .record import EditRecord, UnitDelta
from .request import EditRequest, plain_request, prepare
from .session import commit, twin_of
from .write import fingerprint


@dataclass(frozen=True)
class Trained:
    """What a method found for one batch of requests.

    Attributes:
        units: parameter name -> change.
        losses: loss curve per request (or one curve for a batch that is trained as one).
        probability: of the new object at the end, per request.
        seconds: stage -> seconds.
        info: what else the method reports, as plain JSON values.
    """

    units: dict[str, UnitDelta]
    losses: list[list[float]]
    probability: list[float]
    seconds: dict[str, float]
    info: dict[str, Any] = field(default_factory=dict)


Execute = Callable[[ModelView, object, list[EditRequest], object], Trained]
"""From view, tokenizer, requests and hyperparameters to the change; the model is afterwards as it was."""


def apply_vectors(
    method: str,
    model,
    tok,
    requests: list[dict],
    hparams,
    execute: Execute,
    copy: bool = False,
    return_orig_weights: bool = False,
    records: list | None = None,
):
    """Edits ``model`` in place by what ``execute`` finds.

    Args:
        method: name for the record.
        model, tok: causal language model and tokenizer; the tokenizer is never changed.
        requests: EasyEdit's request dictionaries, one batch.
        hparams: a ``ModelHyperParams``.
        execute: computes the change and leaves the model as it was.
        copy: edit a deep copy instead.
        return_orig_weights: return copies of the weights as they were.
        records: the EditRecord is appended to it.

    Returns:
        (edited model, {parameter name: original tensor}), the second empty unless asked for.

    Raises:
        NeuronEditError: anything wrong with hparams or requests, or an edit that failed. After any exception
            the model is exactly as it was.
    """
    prepared = prepare(requests)
    view = ModelView.of(model, **hparams.module_overrides())
    check_vocabulary(view.model, tok, prepared)
    if copy:
        view = twin_of(view, hparams)
    with eval_mode(view.model):
        found = execute(view, tok, prepared, hparams)
    started = time.perf_counter()
    before = fingerprint(view.model, found.units)

    def describe(after: str) -> EditRecord:
        seconds = {**found.seconds, "write": time.perf_counter() - started}
        return EditRecord(
            method=method,
            hparams=hparams.to_dict(),
            requests=[plain_request(r) for r in prepared],
            contexts=[],
            layers={},
            names={},
            losses=found.losses,
            probability=found.probability,
            seconds=seconds,
            fingerprint_before=before,
            fingerprint_after=after,
            seed=hparams.seed,
            units=found.units,
            info=found.info,
        )

    originals, record = commit(view, found.units, describe)
    if records is not None:
        records.append(record)
    return view.model, originals if return_orig_weights else {}
