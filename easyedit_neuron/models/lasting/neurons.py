"""The neuron of an edit: rows that read its key, and a column that writes its z*."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from ...arch.capture import Capture, take
from ...arch.tokens import Batch
from ...arch.view import ModelView
from ...arch.widen import neuron_reads
from ...edits.record import UnitDelta, unit_numbers
from ...edits.write import restore, write


@dataclass(frozen=True)
class Neuron:
    """One added neuron of a layer.

    Attributes:
        layer, unit: its place.
        rows: projection -> [d_model], what it reads (``gate_proj``, ``up_proj``).
        column: [d_model], what it writes at a response of 1; zero until it is known.
    """

    layer: int
    unit: int
    rows: dict[str, Tensor]
    column: Tensor


def is_gated(view: ModelView, layer: int) -> bool:
    """Whether the FFN multiplies a gate's activation with the up projection."""
    return "gate_proj" in neuron_reads(view, layer)


def neurons_per_edit(view: ModelView, layer: int) -> int:
    """1 in an FFN with a gate, else 2."""
    return 1 if is_gated(view, layer) else 2


def signs_of(activations: Tensor) -> Tensor:
    """Signs [neurons of an edit] of activations [..., neurons of an edit]: without a gate, the second neuron
    is taken off the first one's response."""
    return torch.tensor([1.0, -1.0][: activations.shape[-1]]).to(activations)


def reading_rows(view: ModelView, layer: int, w: Tensor, c: Tensor, hparams) -> list[dict[str, Tensor]]:
    """What the neurons of an edit read, a dictionary of rows for each.

    With m = ``w x`` the match, ``c x`` about 1, t the threshold, s the saturation and a the steepness:

    - with a gate, one neuron ``act(a (m - t)) (1 - m / (2 s - t))``, which is 0 below t and has its maximum
      at s: it grows like ``(m - t)`` and flattens out, because the second factor falls;
    - without, ``act(a (m - t)) - act(a (m - s))``, which grows from t to s and is constant from there. The
      second neuron's column is the negative of the first one's.
    """
    t, s, a = hparams.threshold, hparams.saturation, hparams.steepness
    if is_gated(view, layer):
        return [{"gate_proj": a * (w - t * c), "up_proj": c - w / (2 * s - t)}]
    return [{"up_proj": a * (w - level * c)} for level in (t, s)]


def unit_deltas(view: ModelView, neurons: list[Neuron]) -> dict[str, UnitDelta]:
    """Parameter name -> the rows or columns of added neurons, which are zero in the model."""
    deltas: dict[str, UnitDelta] = {}
    for layer in sorted({neuron.layer for neuron in neurons}):
        here = sorted((neuron for neuron in neurons if neuron.layer == layer), key=lambda n: n.unit)
        units = torch.tensor([neuron.unit for neuron in here])
        info = {"layer": layer, "added": True}
        reads = neuron_reads(view, layer)
        for parameter in {read.parameter: None for read in reads.values()}:
            names = [name for name, read in reads.items() if read.parameter == parameter]
            places = torch.cat([reads[name].rows.cpu()[units] for name in names])
            rows = torch.stack([neuron.rows[name] for name in names for neuron in here])
            size = view.matrix(parameter).shape[0]
            numbers, order = unit_numbers(places, len(names), size).sort()
            vectors, shape = rows[order].to(view.compute_dtype), (size, view.d_model)
            deltas[parameter] = UnitDelta(numbers, vectors, "output", shape, info, len(names))
        columns = torch.stack([neuron.column for neuron in here]).to(view.compute_dtype)
        shape = (view.d_model, view.d_ff)
        deltas[view.down_weight_name(layer)] = UnitDelta(units, columns, "input", shape, info)
    return deltas


@contextmanager
def written(view: ModelView, neurons: list[Neuron]) -> Iterator[None]:
    """A block in which the model has these neurons."""
    originals = write(view, unit_deltas(view, neurons))
    try:
        yield
    finally:
        restore(view.model, originals)


@torch.no_grad()
def read_keys(view: ModelView, batch: Batch, layer: int) -> Tensor:
    """Inputs of a layer's FFN at the last token of every row, [rows, d_model], in the compute dtype."""
    last = batch.lengths - 1
    with Capture(view, [layer], want={"ffn_in"}, stop_after=layer) as seen:
        view.model(**batch.inputs, use_cache=False)
    return take(seen.ffn_in[layer], torch.arange(len(last)), last).to("cpu", view.compute_dtype)


@torch.no_grad()
def responses(view: ModelView, batch: Batch, layer: int, units: list[int]) -> tuple[Tensor, Tensor]:
    """Activations of some neurons, [rows, neurons], and the FFN's output, [rows, d_model], at the last token
    of every row, in the compute dtype."""
    last = batch.lengths - 1
    with Capture(view, [layer], want={"key", "ffn_out"}, stop_after=layer) as seen:
        view.model(**batch.inputs, use_cache=False)
    keys, outputs = (
        take(states[layer], torch.arange(len(last)), last) for states in (seen.key, seen.ffn_out)
    )
    activations = keys[:, torch.tensor(units, device=keys.device)]
    return activations.to("cpu", view.compute_dtype), outputs.to("cpu", view.compute_dtype)
