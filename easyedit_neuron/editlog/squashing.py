"""Many edits as one."""

from __future__ import annotations

from pathlib import Path

import torch

from ..edits.record import EditRecord, LayerDelta, UnitDelta
from ..edits.write import restore
from ..errors import StateError
from ..utils.fingerprint import fingerprints, tensors_fingerprint
from .log import EditLog
from .total import totals
from .undoing import change_weights, view_of


def squash(
    log: EditLog, folder: str | Path, model: torch.nn.Module | None = None, upto: int | None = None
) -> EditLog:
    """A new log whose single entry is the sum of all edits that are in the weights.

    Of every parameter it has the total change: the edits' factors joined, and brought to rank min(d_out,
        d_in) where they are
    more; rows and columns added up by number. Sums are made in float64 and kept in float32 (float64 for a
    float64 model). Requests, keys and the provenance of every edit (``record.info["squashed"]``: id, method,
    requests, content and hash of its entry) are kept.

    Args:
        log: not changed.
        folder: of the new log, which must not hold one.
        model: the base model. With it the new log knows the weights that it leaves, so that edits can follow
            and ``replay`` can say whether it is exact; the model is afterwards as it was.
        upto: entry after which the weights are taken.

    Raises:
        StateError: nothing to squash, a folder that is taken, another base model, a damaged log. Nothing is
            written then.
    """
    ids, base = log.ids_at(upto), log.base
    folder = Path(folder).expanduser()
    EditLog.refuse_taken(folder)
    if not ids:
        raise StateError(f"{log.folder}: no edit is in the weights, so there is nothing to squash")
    if model is not None:
        base.check(model)
    records = [log[number] for number in ids]
    record = _joined(log, ids, records)
    if model is not None:
        _measure(model, record)
    squashed = EditLog(folder, base.name, base.fingerprint)
    squashed.append(record)
    return squashed


def _joined(log: EditLog, ids: list[int], records: list[EditRecord]) -> EditRecord:
    newest, base = records[-1], log.base.weights
    numbers = {name: layer for record in records for layer, name in record.names.items()}
    layers, names, units = {}, {}, {}
    for name, total in totals(records).items():
        dtype = torch.promote_types(getattr(torch, base[name]["dtype"]), torch.float32)
        rows = total.units()
        if rows is not None:
            units[name] = UnitDelta(rows.units, rows.vectors.to(dtype), rows.axis, rows.shape)
            continue
        if name not in numbers:  # rows and columns of one parameter, by methods that change no whole matrices
            raise StateError(
                f"{name}: some edits change its rows and others its columns, which no single entry can hold"
            )
        left, right = total.factors()
        keys = [record.layers[numbers[name]].keys for record in records if numbers[name] in record.layers]
        keys = [key for key in keys if key is not None]
        layers[numbers[name]] = LayerDelta(
            left.to(dtype),
            right.to(dtype),
            keys=torch.cat(keys, 1) if keys else None,
            density=float(right.any(1).double().mean()),
        )
        names[numbers[name]] = name
    told = [
        {
            "id": number,
            "method": record.method,
            "requests": record.requests,
            "content": log.line(number)["content"],
            "hash": log.line(number)["hash"],
        }
        for number, record in zip(ids, records)
    ]
    methods = list(dict.fromkeys(record.method for record in records))
    weights = {
        name: {
            "dtype": base[name]["dtype"],
            "shape": base[name]["shape"],
            "base": base[name]["fingerprint"],
            "before": base[name]["fingerprint"],
            "after": None,
        }
        for name in {**dict.fromkeys(names.values(), 0), **units}
    }
    return EditRecord(
        method="+".join(methods),
        hparams=newest.hparams,
        requests=[request for record in records for request in record.requests],
        contexts=newest.contexts,
        context_groups=newest.context_groups,
        layers=layers,
        names=names,
        losses=[],
        probability=[],
        seconds={},
        fingerprint_before="",
        fingerprint_after="",
        seed=newest.seed,
        units=units,
        info={"squashed": told},
        weights=weights,
    )


def _measure(model: torch.nn.Module, record: EditRecord) -> None:
    """Fingerprints of the weights that the record finds and leaves."""
    originals = change_weights(view_of(model, record), record, 1)
    try:
        record.fingerprint_before = fingerprints(originals.items())[0]
        record.fingerprint_after = fingerprints((name, model.get_parameter(name)) for name in originals)[0]
        for name in originals:
            record.weights[name]["after"] = tensors_fingerprint([(name, model.get_parameter(name))])
    finally:
        restore(model, originals)
