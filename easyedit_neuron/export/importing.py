"""From an export and its base model to an edited checkpoint."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from ..edits.write import fingerprint
from ..errors import StateError
from ..utils.io import write_folder
from .merged import save_model
from .provenance import Exported, check_base, folder_size, free, read_about
from .sparse import apply_sparse


def import_edits(
    path: str | Path, model: nn.Module, tok, out: str | Path, take_off: bool = False
) -> Exported:
    """Writes the checkpoint ``out``: ``model`` with the edits of an export, or without them again.

    Args:
        path: a folder of ``export_peft`` or ``export_sparse``, or a file in it.
        model, tok: the model that the edits were made on (with ``take_off``: that has them), changed by this
            call; tokenizer or None.
        out: a folder that does not exist yet.
        take_off: only of a sparse export, which alone can be taken off exactly.

    Raises:
        StateError: not such a folder, damaged, or of another model. Nothing is written, and the model is as
            it was.
    """
    out = Path(out)
    free(out)
    folder, about = read_about(path)
    if about["kind"] == "merged":
        raise StateError(
            f"{folder}: is a whole model with the edits in it already; load it with from_pretrained"
        )
    if about["kind"] == "sparse":
        apply_sparse(model, folder, take_off)
    elif take_off:
        raise StateError(
            f"{folder}: an adapter cannot be taken off merged weights exactly, because they were rounded. Take the "
            f"base model ({about['base']['name']}), or a sparse export"
        )
    else:
        check_base(model, about, folder)
        model = _merged(model, folder)
    touched = sorted(about["parameters"])
    about = {
        **about,
        "kind": "merged",
        "parameters": {name: {} for name in touched},
        "after": fingerprint(model, touched),
        "files": {},
        "imported_from": about["kind"],
    }
    if take_off:
        about["edits"] = []
    write_folder(out, lambda part: save_model(model, tok, part, about))
    return Exported(out, about, folder_size(out))


def _merged(model: nn.Module, folder: Path) -> nn.Module:
    from peft import PeftModel  # takes seconds

    return PeftModel.from_pretrained(model, str(folder)).merge_and_unload()
