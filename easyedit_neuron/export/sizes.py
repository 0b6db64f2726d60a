"""Bytes of the forms in which edits can be kept or handed on."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from ..edits.record import EditRecord
from ..errors import NeuronEditError
from .adapter import export_peft
from .provenance import folder_size
from .source import Source
from .sparse import export_sparse

ENERGY = 0.99
"""Where the cut adapter of a size report is cut unless something else is asked for."""


@dataclass(frozen=True)
class Size:
    """One form.

    Attributes:
        form: its name.
        bytes: of all its files; of whole models: of the parameters.
        edits: how many edits it holds.
        note: what is lost, or why the form cannot be.
    """

    form: str
    bytes: int | None
    edits: int
    note: str = ""


def sizes(
    edits: Iterable[EditRecord], model: nn.Module, max_rank: int | None = None, energy: float | None = None
) -> list[Size]:
    """Every form of these edits of ``model``, really written (into a temporary folder) and weighed; only
    whole models are counted by their parameters.

    ``max_rank`` and ``energy`` say where the cut adapter is cut; without either it keeps ``ENERGY`` of the
    squared singular values.
    """
    source = Source.of(edits, model)
    count, weights = source.requests, weights_bytes(model)
    energy = ENERGY if max_rank is None and energy is None else energy
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "records").mkdir()
        for number, record in enumerate(source.records):
            record.save(folder / "records" / f"{number}.safetensors")
        found = [
            Size("records", folder_size(folder / "records"), count, "float32 factors, masks, hyperparameters")
        ]
        for form, options in (("adapter", {}), ("cut adapter", {"max_rank": max_rank, "energy": energy})):
            try:
                made = export_peft(source.records, model, folder / form, **options)
            except NeuronEditError as problem:
                found.append(Size(form, None, count, str(problem)))
            else:
                found.append(Size(form, made.size, count, _note(made.about["parameters"])))
        found.append(
            Size("sparse", export_sparse(source.records, model, folder / "sparse").size, count, "bit for bit")
        )
    return [*found, Size("merged", weights, count, "bit for bit"), Size("unedited model", weights, 0)]


def weights_bytes(model: nn.Module) -> int:
    """Bytes of all parameters, tied ones once."""
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())


def size_table(found: list[Size]) -> str:
    """A report for the terminal."""
    whole = found[-1].bytes
    rows = [("form", "bytes", "per edit", "of the model", "")]
    for size in found:
        if size.bytes is None:
            rows.append((size.form, "-", "-", "-", size.note))
            continue
        each = f"{size.bytes // size.edits:,}" if size.edits else ""
        rows.append((size.form, f"{size.bytes:,}", each, f"{size.bytes / whole:.2%}", size.note))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = (
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:4], widths[1:]), row[4]]) for row in rows
    )
    return "".join(line.rstrip() + "\n" for line in lines)


def _note(parameters: dict[str, dict]) -> str:
    ranks = [about["rank"] for about in parameters.values() if about["rank"]]
    lost = max(about["truncation"] for about in parameters.values())
    rank = f"rank {min(ranks)} to {max(ranks)}" if min(ranks) < max(ranks) else f"rank {ranks[0]}"
    return rank + (f", at most {lost:.1%} of a weight's change lost" if lost else ", nothing lost")
