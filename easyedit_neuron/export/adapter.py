"""Edits as a LoRA adapter that plain peft loads."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import nn

from ..arch.chat import chat_tokenizer
from ..arch.view import is_conv1d
from ..edits.record import EditRecord, LayerDelta
from ..edits.write import restore, write
from ..errors import NeuronEditError
from ..evaluation import evaluate_all, summarize
from ..utils.io import save_tensors
from .factors import Factors, summed_factors, truncate
from .lora import CONFIG, WEIGHTS, is_bias, lora_adapter, lora_modules
from .side_file import Exported, describe, refuse_existing, write_export
from .source import Source
from .vllm import vllm_check


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
    measured: dict | None = None,
) -> Exported:
    """Write the folder ``out`` that ``peft.PeftModel.from_pretrained(model, out)`` loads.

    ``lora_B @ lora_A`` of a module is the sum of the changes of its weight, in float32 whatever the model's
    dtype. ``lora_alpha == r``, so that peft's scaling is 1. A change of a bias is the bias of ``lora_B``.

    Args:
        edits: records in the order in which they were made; or a log, whose edits in the weights are taken.
        model: the model without them; the same afterwards.
        out: a folder that does not exist yet.
        max_rank, energy: truncate every module's change as ``factors.truncate`` does; by default it is exact.
        tok: tokenizer. With it the side file says what truncation does to the edits: in ``rewrite_acc``,
            EasyEdit's score of all requests with the ``edited`` weights and with the ``cut`` adapter.
        base, ids: names of the model and of the edits, see ``Source.of``.
        measured: scores of these edits for the model card: ``[value, low, high]`` by EasyEdit's names.

    The side file has for each parameter ``rank``; ``full_rank`` before truncation; ``truncation``, its
    relative error in the Frobenius norm; ``deviation``, the relative error of the adapter's change against
    that of the edited weights, with their rounding. ``NeuronEditError`` where the model is not the log's
    base, LoRA cannot change a parameter, or ``out`` exists; nothing is written then.
    """
    check_truncation(max_rank, energy)
    refuse_existing(out)
    source = Source.of(edits, model, base, ids)
    if any(record.adds_neurons for record in source.records):
        raise NeuronEditError("an edit adds neurons, which an adapter cannot: export merged or sparse")
    exact = dict(sorted(summed_factors(source.records).items()))
    if not exact:
        raise NeuronEditError("there is nothing to export: the edits add up to no change")
    modules = lora_modules(source, exact)

    # Truncate the changes of weights; those of biases are vectors.
    parameters: dict[str, dict] = {
        name: {"rank": 0, "full_rank": 0, "truncation": 0.0, "deviation": 0.0} for name in source.parameters
    }
    changes: dict[str, Factors] = {}
    for name, factors in exact.items():
        changes[name], error = (factors, 0.0) if is_bias(name) else truncate(factors, max_rank, energy)
        parameters[name] = {"rank": changes[name].rank, "full_rank": factors.rank, "truncation": error}
    truncated = any(parameter["truncation"] for parameter in parameters.values())

    # Compare with the edited weights.
    accuracy = {}
    with source.edited() as weights:
        for name, factors in changes.items():
            parameters[name]["deviation"] = _deviation(source, name, weights.originals[name], factors)
        if truncated and tok is not None:
            accuracy["edited"] = _rewrite_accuracy(source, tok)
    if accuracy:
        accuracy["cut"] = _truncated_accuracy(source, tok, changes)

    tensors, config = lora_adapter(source, modules, changes)
    extra = {"rewrite_acc": accuracy} if accuracy else {}

    def fill(folder: Path) -> None:
        save_tensors(folder / WEIGHTS, tensors, {"format": "pt"})
        config.save_pretrained(folder)
        side_file["vllm"] = vllm_check(folder).to_dict()

    side_file = describe(source, "peft", weights, parameters, measured, **extra)
    return write_export(out, side_file, fill, [WEIGHTS, CONFIG])


def check_truncation(max_rank: int | None, energy: float | None) -> None:
    """Raise a ``NeuronEditError`` for a ``max_rank`` below 1 or an ``energy`` outside (0, 1]."""
    if max_rank is not None and max_rank < 1:
        raise NeuronEditError(f"max_rank: must be at least 1, not {max_rank}")
    if energy is not None and not 0 < energy <= 1:
        raise NeuronEditError(f"energy: must be greater than 0 and at most 1, not {energy}")


def _deviation(source: Source, name: str, original: torch.Tensor, factors: Factors) -> float:
    """``||(W' - W) - D|| / ||W' - W||``: edited weight W', original W, change D of the adapter."""
    difference = source.model.get_parameter(name).detach().double().cpu() - original.double().cpu()
    change = factors.matrix()
    if difference.dim() == 1:
        change = change[:, 0]
    elif is_conv1d(source.model.get_submodule(name.rpartition(".")[0])):
        change = change.T
    size = float(difference.norm())
    return float((difference - change).norm()) / size if size else 0.0


def _rewrite_accuracy(source: Source, tok) -> float:
    """Mean token accuracy of the edits' new objects."""
    metrics = []
    for in_chat in (False, True):
        records = [record for record in source.records if in_chat == record.made_in_chat]
        requests = [request for record in records for request in record.requests]
        if requests:
            metrics += evaluate_all(source.model, chat_tokenizer(tok) if in_chat else tok, requests)
    return summarize(metrics)["rewrite_acc"]


def _truncated_accuracy(source: Source, tok, changes: dict[str, Factors]) -> float:
    """The same on the unedited model with the adapter's changes."""
    factors = {name: (change.value_factor, change.key_factor) for name, change in changes.items()}
    deltas = {name: LayerDelta(left.float(), right.float()) for name, (left, right) in factors.items()}
    originals = write(source.view, deltas)
    try:
        return _rewrite_accuracy(source, tok)
    finally:
        restore(source.model, originals)
