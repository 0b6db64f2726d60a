"""Bytes of the forms in which edits can be stored or handed on."""

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from ..edits.record import EditRecord
from ..errors import NeuronEditError
from .adapter import export_peft
from .side_file import folder_size
from .source import Source
from .sparse import export_sparse

ENERGY = 0.99
"""Share of the squared singular values in the cut adapter of a size report, unless the caller says
otherwise."""


@dataclass(frozen=True)
class Size:
    """Size of one form, of whole models that of the parameters; None where the form cannot hold the edits."""

    form: str
    bytes: int | None
    edits: int
    note: str = ""


def sizes(
    edits: Iterable[EditRecord], model: nn.Module, max_rank: int | None = None, energy: float | None = None
) -> list[Size]:
    """Sizes of every form of these edits of ``model``.

    Every form is written into a temporary folder; only whole models are counted by their parameters.
    ``max_rank`` and ``energy`` truncate the cut adapter; without either it keeps ``ENERGY``.
    """
    records = Source.of(edits, model).records
    count = sum(len(record.requests) for record in records)
    if max_rank is None and energy is None:
        energy = ENERGY
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "records").mkdir()
        for number, record in enumerate(records):
            record.save(folder / "records" / f"{number}.safetensors")
        size = folder_size(folder / "records")
        rows.append(Size("records", size, count, "float32 factors, masks, hyperparameters"))
        for form, options in (("adapter", {}), ("cut adapter", {"max_rank": max_rank, "energy": energy})):
            try:
                adapter = export_peft(records, model, folder / form, **options)
                rows.append(Size(form, adapter.size, count, _note(adapter.side_file["parameters"])))
            except NeuronEditError as problem:
                rows.append(Size(form, None, count, str(problem)))
        sparse = export_sparse(records, model, folder / "sparse")
        rows.append(Size("sparse", sparse.size, count, "bit for bit"))
    # A tied parameter counts once.
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    return [*rows, Size("merged", weights, count, "bit for bit"), Size("unedited model", weights, 0)]


def size_table(sizes: list[Size]) -> str:
    """A table for the terminal; the last size is the unedited model's."""
    rows = [("form", "bytes", "per edit", "of the model", "")]
    for size in sizes:
        cells = ("-", "-", "-")
        if size.bytes is not None:
            per_edit = f"{size.bytes // size.edits:,}" if size.edits else ""
            cells = (f"{size.bytes:,}", per_edit, f"{size.bytes / sizes[-1].bytes:.2%}")
        rows.append((size.form, *cells, size.note))
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = []
    for form, *cells, note in rows:
        aligned = map(str.rjust, cells, widths[1:])
        lines.append("  ".join([form.ljust(widths[0]), *aligned, note]).rstrip() + "\n")
    return "".join(lines)


def _note(parameters: dict[str, dict]) -> str:
    ranks = [parameter["rank"] for parameter in parameters.values() if parameter["rank"]]
    lost = max(parameter["truncation"] for parameter in parameters.values())
    rank = f"rank {min(ranks)} to {max(ranks)}" if min(ranks) < max(ranks) else f"rank {ranks[0]}"
    return rank + (f", at most {lost:.1%} of a weight's change lost" if lost else ", nothing lost")
