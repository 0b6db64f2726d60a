"""Edits inside a whole checkpoint, for whoever wants neither peft nor this package."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from torch import nn

from ..edits.record import EditRecord
from ..edits.write import fingerprint
from ..utils.io import write_folder
from .provenance import Exported, describe, folder_size, free, write_about
from .source import Source, fingerprints


def export_merged(
    edits: Iterable[EditRecord],
    model: nn.Module,
    tok,
    out: str | Path,
    *,
    base: str | None = None,
    ids: Sequence | None = None,
) -> Exported:
    """Writes the edited model and its tokenizer with ``save_pretrained`` into the folder ``out``, and the
    side file beside them.

    ``from_pretrained(out)`` has the weights of the edits made one after the other on ``model``, bit for bit.

    Args and errors as those of ``export_peft``; ``tok``: tokenizer, or None to leave it out.
    """
    out = Path(out)
    free(out)
    source = Source.of(edits, model, base, ids)
    before = fingerprints(source.model, source.parameters)
    with source.edited():
        after = fingerprint(source.model, source.parameters)
        about = describe(source, "merged", before, after, {name: {} for name in source.parameters})
        write_folder(out, lambda folder: save_model(source.model, tok, folder, about))
    return Exported(out, about, folder_size(out))


def save_model(model: nn.Module, tok, folder: Path, about: dict) -> None:
    """Checkpoint, tokenizer and side file."""
    model.save_pretrained(folder)
    if tok is not None:
        tok.save_pretrained(folder)
    write_about(folder, about, [])
