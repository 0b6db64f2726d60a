"""Make an edited checkpoint from an export and its base model."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from ..edits.write import fingerprint
from ..errors import StateError
from .merged import write_checkpoint
from .side_file import Exported, check_base, read_side_file, refuse_existing
from .sparse import apply_sparse


def import_edits(
    path: str | Path, model: nn.Module, tok, out: str | Path, take_off: bool = False
) -> Exported:
    """Write the checkpoint ``out``: ``model`` with the edits of an export, or without them again.

    Args:
        path: a folder of ``export_peft`` or ``export_sparse``, or a file in it.
        model: the model that the edits were made on (with ``take_off``: that has them); changed by this call.
        tok: its tokenizer, or None.
        out: a folder that does not exist yet.
        take_off: take the edits off, which only a sparse export can do exactly.

    Raises:
        StateError: not such a folder, damaged, or of another model. Nothing is written, and the model is as
            it was.
    """
    refuse_existing(out)
    folder, side_file = read_side_file(path)
    kind = side_file["kind"]
    if kind == "merged":
        raise StateError(
            f"{folder}: is a whole model with the edits in it already; load it with from_pretrained"
        )
    if kind == "sparse":
        apply_sparse(model, folder, take_off)
    elif take_off:
        raise StateError(
            f"{folder}: an adapter cannot be taken off merged weights exactly, because they were rounded. "
            f"Take the base model ({side_file['base']['name']}), or a sparse export"
        )
    else:
        from peft import PeftModel  # takes seconds

        check_base(model, side_file, folder)
        model = PeftModel.from_pretrained(model, str(folder)).merge_and_unload()
    touched = sorted(side_file["parameters"])
    side_file = {
        **side_file,
        "kind": "merged",
        "parameters": {name: {} for name in touched},
        "after": fingerprint(model, touched),
        "imported_from": kind,
    }
    if take_off:
        side_file["edits"] = []
    return write_checkpoint(out, model, tok, side_file)
