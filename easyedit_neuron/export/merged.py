"""Edits inside a whole checkpoint, which needs neither peft nor this package."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from torch import nn

from ..edits.record import EditRecord
from .side_file import Exported, describe, refuse_existing, write_export
from .source import Source


def export_merged(
    edits: Iterable[EditRecord],
    model: nn.Module,
    tok,
    out: str | Path,
    *,
    base: str | None = None,
    ids: Sequence | None = None,
) -> Exported:
    """Write the edited model, its tokenizer and the side file into the folder ``out``.

    ``from_pretrained(out)`` has the weights of the edits made one after the other on ``model``, bit for bit.
    Arguments and errors as for ``export_peft``; ``tok``: tokenizer, or None to leave it out.
    """
    refuse_existing(out)
    source = Source.of(edits, model, base, ids)
    with source.edited() as weights:
        side_file = describe(source, "merged", weights, {name: {} for name in source.parameters})
        return write_checkpoint(out, source.model, tok, side_file)


def write_checkpoint(out: str | Path, model: nn.Module, tok, side_file: dict) -> Exported:
    """Write a model, its tokenizer (or None) and the side file."""

    def fill(folder: Path) -> None:
        model.save_pretrained(folder)
        if tok is not None:
            tok.save_pretrained(folder)

    return write_export(out, side_file, fill)
