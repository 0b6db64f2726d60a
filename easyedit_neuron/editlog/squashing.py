"""Join many edits into one."""

import dataclasses
from pathlib import Path
from typing import Any

import torch

from ..edits.record import EditRecord, Factors, LayerDelta, UnitDelta, add_factors
from ..edits.write import restore
from ..errors import StateError
from ..utils.fingerprint import fingerprints
from .log import EditLog
from .summed_change import sum_changes
from .undoing import change_weights, view_of


def squash(
    log: EditLog, folder: str | Path, model: torch.nn.Module | None = None, upto: int | None = None
) -> EditLog:
    """Write a new log whose single entry is the sum of all edits in the weights (after entry ``upto``).

    Low-rank changes of a parameter are joined to factors of rank at most min(d_out, d_in); rows and columns
    are added up by number. Sums are made in float64 and stored in float32 (float64 for a float64 model).
    Requests, keys and the provenance of every edit (``record.info["squashed"]``: id, method, requests,
    content) are kept.

    With ``model``, the base model, the new log knows the weights that it leaves, so that edits can follow and
    ``replay`` can say whether it is exact; the model is afterwards as it was. ``StateError`` before anything
    is written where there is nothing to squash, ``folder`` holds a log, or the base is another model.
    """
    ids, base = log.ids_at(upto), log.base
    folder = Path(folder).expanduser()
    EditLog.refuse_taken(folder)
    if not ids:
        raise StateError(f"{log.folder}: no edit is in the weights, so there is nothing to squash")
    if model is not None:
        base.check(model)
    record = _join(log, ids)
    if model is not None:
        _add_fingerprints(model, record)
    squashed = EditLog(folder, base.name, base.fingerprint)
    squashed.append(record)
    return squashed


def _join(log: EditLog, ids: list[int]) -> EditRecord:
    records = [log[number] for number in ids]
    newest, base = records[-1], log.base.weights
    layer_of = {name: layer for record in records for layer, name in record.names.items()}
    layers: dict[int, LayerDelta] = {}
    names: dict[int, str] = {}
    units: dict[str, UnitDelta] = {}
    for name, change in sum_changes(records).items():
        dtype = torch.promote_types(getattr(torch, base[name]["dtype"]), torch.float32)
        summed_units = change.units()
        if summed_units is not None:
            adds = any(record.units[name].adds for record in records if name in record.units)
            vectors, info = summed_units.vectors.to(dtype), {"added": True} if adds else {}
            units[name] = dataclasses.replace(summed_units, vectors=vectors, info=info)
        elif name in layer_of:
            layer = layer_of[name]
            left, right = (factor.to(dtype) for factor in change.factors())
            density = float(right.any(1).double().mean())
            own = _joined_own(records, layer, (left, right))
            layers[layer] = LayerDelta(left, right, None, density, keys=_joined_keys(records, layer), own=own)
            names[layer] = name
        else:
            problem = "some edits change its rows and others its columns"
            raise StateError(f"{name}: {problem}, which no single entry can hold")
    provenance = []
    for number, record in zip(ids, records):
        content = log.edit_entry(number)["content"]
        origin = {"id": number, "method": record.method, "requests": record.requests}
        provenance.append(origin | {"content": content})
    weights: dict[str, dict[str, Any]] = {}
    for name in (*names.values(), *units):
        form = {key: base[name][key] for key in ("dtype", "shape")}
        original = base[name]["fingerprint"]
        weights[name] = {**form, "base": original, "before": original, "after": None}
    # Hyperparameters, contexts and seed stay those of the newest edit.
    method = "+".join(dict.fromkeys(record.method for record in records))
    requests = [request for record in records for request in record.requests]
    changes = {"layers": layers, "names": names, "units": units, "weights": weights}
    emptied = {"losses": [], "probability": [], "seconds": {}, "metrics": {}}
    emptied |= {"fingerprint_before": "", "fingerprint_after": "", "info": {"squashed": provenance}}
    return dataclasses.replace(newest, method=method, requests=requests, **changes, **emptied)


def _joined_keys(records: list[EditRecord], layer: int) -> torch.Tensor | None:
    deltas = [record.layers[layer] for record in records if layer in record.layers]
    keys = [delta.keys for delta in deltas if delta.keys is not None]
    return torch.cat(keys, 1) if keys else None


def _joined_own(records: list[EditRecord], layer: int, written: Factors) -> Factors | None:
    """What the edits themselves would have changed without masks; None without error compensation."""
    deltas = [record.layers[layer] for record in records if layer in record.layers]
    cut_off = [change for delta in deltas if (change := delta.cut_off) is not None]
    return add_factors(written, *cut_off) if cut_off else None


def _add_fingerprints(model: torch.nn.Module, record: EditRecord) -> None:
    """Fill in the fingerprints of the weights before and after the record."""
    originals = change_weights(view_of(model, record), record, 1)
    try:
        record.fingerprint_before = fingerprints(originals.items())[0]
        edited = ((name, model.get_parameter(name)) for name in originals)
        record.fingerprint_after, after = fingerprints(edited)
        for name, fingerprint in after.items():
            record.weights[name]["after"] = fingerprint
    finally:
        restore(model, originals)
