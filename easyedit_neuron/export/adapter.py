"""Edits as a LoRA adapter that plain peft loads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import nn

from ..arch.view import is_conv1d
from ..edits.record import EditRecord, LayerDelta
from ..edits.write import fingerprint, restore, write
from ..errors import NeuronEditError
from ..evaluation import evaluate_all, summarize
from ..utils.io import save_tensors, write_folder
from .factors import Factors, summed, truncated
from .lora import is_bias, lora_config, lora_modules, lora_tensors
from .provenance import Exported, describe, folder_size, free, write_about
from .source import Source, fingerprints

WEIGHTS = "adapter_model.safetensors"


def export_peft(
    edits: Iterable[EditRecord],
    model: nn.Module,
    out: str | Path,
    *,
    max_rank: int | None = None,
    energy: float | None = None,
    tok=None,
    base: str | None = None,
    ids: Sequence | None = None,
) -> Exported:
    """Writes the folder ``out`` that ``peft.PeftModel.from_pretrained(model, out)`` loads; peft then adds the
    edits' changes.

    ``lora_B @ lora_A`` of a module is the sum of the changes of its weight (``lora_alpha == r``, so that
    peft's scaling is 1), in float32 whatever the model's dtype. Ranks differ between modules:
    ``rank_pattern``. A change of a bias is the bias of ``lora_B`` (``lora_bias``).

    Args:
        edits: records in the order in which they were made; or a log, of which those count that have not been
            taken back.
        model: the model without them; the same afterwards.
        out: a folder that does not exist yet.
        max_rank, energy: cut every module's change down as ``factors.truncated`` does; by default nothing is
            lost.
        tok: tokenizer; with it ``about["rewrite_acc"]`` says what a cut does to the edits: EasyEdit's
            ``rewrite_acc`` of all requests ``edited`` and with the ``cut`` adapter.
        base: name of the model for ``adapter_config.json``; default: the log's, or that of the first edit's
            hyperparameters.
        ids: names of the edits for the side file; default: the log's, or 0, 1, ...

    Returns:
        What was written. ``about["parameters"]`` says per parameter: ``rank``; ``full_rank`` before it was
        cut; ``truncation``, the relative error of the cut in the Frobenius norm; ``deviation``, that of the
        adapter's change against the change of the edited model's weights, which holds the rounding of the
        weights too.

    Raises:
        NeuronEditError: the model is not the log's base, a parameter that LoRA cannot change (the message
            names the other forms), ``out`` exists, or an option is out of range. Nothing is written.
    """
    out = Path(out)
    check_cut(max_rank, energy)
    free(out)
    source = Source.of(edits, model, base, ids)
    found = dict(sorted(summed(source.records).items()))
    about = {
        name: {"rank": 0, "full_rank": 0, "truncation": 0.0, "deviation": 0.0} for name in source.parameters
    }
    if not found:
        raise NeuronEditError("there is nothing to export: the edits add up to no change")
    modules, before = lora_modules(source, found), fingerprints(source.model, source.parameters)
    kept: dict[str, Factors] = {}
    for name, factors in found.items():
        kept[name], error = (factors, 0.0) if is_bias(name) else truncated(factors, max_rank, energy)
        about[name] = {"rank": kept[name].rank, "full_rank": factors.rank, "truncation": error}
    cut = any(entry["truncation"] for entry in about.values())
    with source.edited() as originals:
        after = fingerprint(source.model, source.parameters)
        for name, factors in kept.items():
            about[name]["deviation"] = _deviation(source, name, originals[name], factors)
        answers = {"edited": _answered(source, tok)} if cut and tok is not None else {}
    if answers:
        answers["cut"] = _answered_with(source, tok, kept)
    tensors, ranks, biased = lora_tensors(source, modules, kept)
    config = lora_config(source, ranks, biased)
    described = describe(
        source, "peft", before, after, about, **({"rewrite_acc": answers} if answers else {})
    )

    def fill(folder: Path) -> None:
        save_tensors(folder / WEIGHTS, tensors, {"format": "pt"})
        config.save_pretrained(folder)
        write_about(folder, described, [WEIGHTS, "adapter_config.json"])

    write_folder(out, fill)
    return Exported(out, described, folder_size(out))


def check_cut(max_rank: int | None, energy: float | None) -> None:
    """``NeuronEditError`` for a ``max_rank`` below 1 or an ``energy`` outside (0, 1]."""
    if max_rank is not None and max_rank < 1:
        raise NeuronEditError(f"max_rank: must be at least 1, not {max_rank}")
    if energy is not None and not 0 < energy <= 1:
        raise NeuronEditError(f"energy: must be greater than 0 and at most 1, not {energy}")


def _deviation(source: Source, name: str, original: torch.Tensor, factors: Factors) -> float:
    """``||(W' - W) - D|| / ||W' - W||`` for the edited weight W', the original W and the adapter's change
    D."""
    moved, change = (
        source.model.get_parameter(name).detach().double().cpu() - original.double().cpu(),
        factors.matrix(),
    )
    if moved.dim() == 1:
        change = change[:, 0]
    elif is_conv1d(source.model.get_submodule(name.rpartition(".")[0])):
        change = change.T
    size = float(moved.norm())
    return float((moved - change).norm()) / size if size else 0.0


def _answered(source: Source, tok) -> float:
    """Mean token accuracy of the edits' new objects."""
    requests = [request for record in source.records for request in record.requests]
    return summarize(evaluate_all(source.model, tok, requests))["rewrite_acc"]


def _answered_with(source: Source, tok, kept: dict[str, Factors]) -> float:
    """The same with the adapter's change."""
    changes = {
        name: LayerDelta(factors.left.float(), factors.right.float()) for name, factors in kept.items()
    }
    originals = write(source.view, changes)
    try:
        return _answered(source, tok)
    finally:
        restore(source.model, originals)
