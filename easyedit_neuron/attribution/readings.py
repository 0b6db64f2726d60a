"""What the attribution needs of each prompt, read at its last real token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from ..arch import Capture, ModelView
from ..errors import NeuronEditError


@dataclass
class Readings:
    """Hidden states of B prompts at their last real token, in the compute dtype, on the unembedding's device.

    Attributes:
        activations: ``{layer: [B, d_ff]}`` neuron activations q.
        resid_mid: ``{layer: [B, d_model]}`` residual stream before the FFN is added.
        ffn_out: ``{layer: [B, d_model]}`` output of the down projection.
        final_hidden: ``[B, d_model]`` input of the final norm.
        top1: ``[B]`` the model's own most probable next token.
    """

    activations: dict[int, Tensor]
    resid_mid: dict[int, Tensor]
    ffn_out: dict[int, Tensor]
    final_hidden: Tensor
    top1: Tensor


def compute_dtype(view: ModelView) -> torch.dtype:
    """float64 for a float64 model, else float32: half precision holds the weights, never the sums."""
    return torch.float64 if view.unembedding()[0].dtype == torch.float64 else torch.float32


@torch.no_grad()
def read_prompts(view: ModelView, batch, layers: Sequence[int], prompt_batch: int = 32) -> Readings:
    """Run the prompts, ``prompt_batch`` at a time, and keep their last real tokens only.

    Args:
        view: the model.
        batch: ``tokens.Batch`` with ``input_ids [B, T]``, ``attention_mask [B, T]``, ``lengths [B]`` (right-padded).
        layers: layers to read.
        prompt_batch: prompts per forward pass; bounds the memory at ``prompt_batch * T * d_ff`` numbers per layer.

    Raises:
        NeuronEditError: an empty batch, or a prompt without a real token.
    """
    ids, mask = batch.input_ids, batch.attention_mask
    lengths = torch.as_tensor(batch.lengths, device="cpu")
    if ids.shape[0] == 0:
        raise NeuronEditError("attribution needs at least one prompt; the batch is empty")
    if int(lengths.min()) < 1:
        raise NeuronEditError(f"prompt {int(lengths.argmin())} of the batch has no tokens")
    weight, bias = view.unembedding()
    dtype, device = compute_dtype(view), weight.device
    names = ("key", "resid_mid", "ffn_out")
    rows: dict[str, dict[int, list[Tensor]]] = {name: {layer: [] for layer in layers} for name in names}
    finals, tops = [], []
    for start in range(0, ids.shape[0], prompt_batch):
        part = slice(start, start + prompt_batch)
        last = lengths[part] - 1
        width = int(last.max()) + 1
        with Capture(view, layers, want={*names, "final_hidden"}, stop_after="final") as seen:
            view.model(
                input_ids=ids[part, :width].to(view.input_device),
                attention_mask=mask[part, :width].to(view.input_device),
                use_cache=False,
            )
        for name in names:
            for layer, tensor in getattr(seen, name).items():
                rows[name][layer].append(_at(tensor, last).to(device, dtype))
        hidden = _at(seen.final_hidden, last)
        # in the model's own dtype and through its own norm, so that this is the token the model would say
        logits = functional.linear(view.final_norm(hidden).to(device, weight.dtype), weight, bias)
        tops.append(logits.argmax(dim=-1))
        finals.append(hidden.to(device, dtype))
    stacked = {name: {layer: torch.cat(parts) for layer, parts in rows[name].items()} for name in names}
    return Readings(stacked["key"], stacked["resid_mid"], stacked["ffn_out"], torch.cat(finals), torch.cat(tops))


def _at(tensor: Tensor, last: Tensor) -> Tensor:
    return tensor[torch.arange(len(last), device=tensor.device), last.to(tensor.device)]
