"""Edited checkpoints, from edits or from an export: whole models that need neither peft nor this package."""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import nn

from ..edits.record import EditRecord
from ..edits.write import clone_weights, fingerprint, restore
from ..errors import StateError
from ..utils.io import write_text
from ..utils.schema import damage_is
from .lora import check_adapter
from .side_file import Exported, check_base, describe, read_side_file, refuse_existing, write_export
from .source import Source
from .sparse import apply_sparse

LOG = logging.getLogger(__name__)


def export_merged(
    edits: Iterable[EditRecord],
    model: nn.Module,
    tok,
    out: str | Path,
    *,
    base: str | None = None,
    ids: Sequence | None = None,
    measured: dict | None = None,
) -> Exported:
    """Write the edited model, its tokenizer and the side file into the folder ``out``.

    ``from_pretrained(out)`` has the weights of the edits made one after the other on ``model``, bit for bit.
    Arguments and errors as for ``export_peft``; ``tok``: tokenizer, or None to leave it out.
    """
    refuse_existing(out)
    source = Source.of(edits, model, base, ids)
    with source.edited() as weights:
        parameters: dict[str, dict] = {name: {} for name in source.parameters}
        side_file = describe(source, "merged", weights, parameters, measured)
        return _write_checkpoint(out, source.model, tok, side_file)


def import_edits(
    path: str | Path, model: nn.Module, tok, out: str | Path, take_off: bool = False
) -> Exported:
    """Write the checkpoint ``out``: ``model`` with the edits of an export, or with ``take_off`` without them
    again.

    Args:
        path: a folder of ``export_peft`` or ``export_sparse``, or a file in it.
        model: the model that the edits were made on (with ``take_off``: that has them); changed by this call.

    Raises:
        StateError: not such a folder, damaged, or of another model; the model is then as it was.
    """
    refuse_existing(out)
    folder, side_file = read_side_file(path)
    kind = side_file["kind"]
    if kind in ("merged", "gguf"):
        remedy = "load it with from_pretrained" if kind == "merged" else "name it as model.path"
        raise StateError(f"{folder}: is a whole model with the edits in it already; {remedy}")
    if kind == "sparse":
        apply_sparse(model, folder, take_off)
    elif take_off:
        raise StateError(
            f"{folder}: an adapter cannot be taken off merged weights exactly, because they were rounded. "
            f"Take the base model ({side_file['base']['name']}), or a sparse export"
        )
    else:
        check_base(model, side_file, folder)
        model = _with_adapter(model, folder, list(side_file["parameters"]))
    touched = sorted(side_file["parameters"])
    side_file = side_file | {"kind": "merged", "parameters": {name: {} for name in touched}}
    side_file |= {"after": fingerprint(model, touched), "imported_from": kind}
    side_file.pop("vllm", None)
    if take_off:
        side_file["edits"] = []
        side_file.pop("measured", None)
    return _write_checkpoint(out, model, tok, side_file)


def _with_adapter(model: nn.Module, folder: Path, touched: list[str]) -> nn.Module:
    """The model with an adapter merged into the weights that its side file names; errors leave it as it
    was."""
    from peft import PeftModel  # takes seconds

    check_adapter(folder, touched)
    originals = clone_weights(model, touched)
    try:
        with damage_is(StateError, f"{folder}: peft cannot load it; export again"), torch.no_grad():
            merged = PeftModel.from_pretrained(model, str(folder)).merge_and_unload()
        for name in touched:
            if not bool(torch.isfinite(merged.get_parameter(name)).all()):
                raise StateError(f"{folder}: gives {name} numbers that are not finite; nothing is written")
        return merged
    except StateError:
        _take_off_adapter(model)
        restore(model, originals)
        raise


def _take_off_adapter(model: nn.Module) -> None:
    """Put back the modules of a model that peft has wrapped before it failed."""
    for name, module in list(model.named_modules()):
        if hasattr(module, "base_layer"):
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, module.base_layer)


def _write_checkpoint(out: str | Path, model: nn.Module, tok, side_file: dict) -> Exported:
    def fill(folder: Path) -> None:
        _save_model(model, folder)
        if tok is not None:
            tok.save_pretrained(folder)

    return write_export(out, side_file, fill)


def _save_model(model: nn.Module, folder: Path) -> None:
    """``save_pretrained``, also for a model whose generation config transformers refuses to write (as that of
    Llama-2-chat: a temperature without sampling); the file then has what the config had."""
    config = getattr(model, "generation_config", None)
    try:
        if config is not None:
            config.save_pretrained(folder)
    except ValueError as problem:
        LOG.warning("the generation config is invalid, and is written as it is: %s", problem)
        model.generation_config = type(config)()
        try:
            model.save_pretrained(folder)
        finally:
            model.generation_config = config
        write_text(folder / "generation_config.json", config.to_json_string(use_diff=True))
    else:
        model.save_pretrained(folder)
