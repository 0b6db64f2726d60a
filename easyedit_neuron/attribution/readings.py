"""What the attribution needs of each prompt, read at its last real token or at positions that are given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Sequence

import torch
from torch import Tensor

from ..arch import Capture, ModelView
from ..errors import NeuronEditError


@dataclass
class Readings:
    """Hidden states at B places (a prompt and a position), in the compute dtype, on the unembedding's device.

    Attributes:
        activations: ``{layer: [B, d_ff]}`` neuron activations q.
        resid_mid: ``{layer: [B, d_model]}`` residual stream before the FFN is added.
        ffn_out: ``{layer: [B, d_model]}`` output of the down projection.
        final_hidden: ``[B, d_model]`` input of the final norm; ``None`` where it was not asked for.
        top1: ``[B]`` the model's own most probable next token; ``None`` likewise.
    """

    activations: dict[int, Tensor]
    resid_mid: dict[int, Tensor]
    ffn_out: dict[int, Tensor]
    final_hidden: Optional[Tensor]
    top1: Optional[Tensor]


@torch.no_grad()
def read_prompts(
    view: ModelView,
    batch,
    layers: Sequence[int],
    prompt_batch: int = 32,
    at: Optional[tuple[Tensor, Tensor]] = None,
    final: bool = True,
) -> Readings:
    """Run the prompts, ``prompt_batch`` at a time, and keep one token of each, or the tokens at ``at``.

    Args:
        view: the model.
        batch: ``tokens.Batch`` with ``input_ids [P, T]``, ``attention_mask [P, T]``, ``lengths [P]`` (right-padded).
        layers: layers to read.
        prompt_batch: prompts per forward pass; bounds the memory at ``prompt_batch * T * d_ff`` numbers per layer.
        at: ``(rows [B], positions [B])``, the rows ascending; unset: every prompt's last real token (B = P).
        final: also read ``final_hidden`` and ``top1``; without them the forward ends at the last of ``layers``.

    Raises:
        NeuronEditError: an empty batch, or a prompt without a real token.
    """
    ids, mask = batch.input_ids, batch.attention_mask
    lengths = torch.as_tensor(batch.lengths, device="cpu")
    if ids.shape[0] == 0:
        raise NeuronEditError("attribution needs at least one prompt; the batch is empty")
    if int(lengths.min()) < 1:
        raise NeuronEditError(f"prompt {int(lengths.argmin())} of the batch has no tokens")
    owner, position = (torch.arange(len(lengths)), lengths - 1) if at is None else (x.cpu() for x in at)
    device, dtype = view.unembedding()[0].device, view.compute_dtype
    names = ("key", "resid_mid", "ffn_out")
    rows: dict[str, dict[int, list[Tensor]]] = {name: {layer: [] for layer in layers} for name in names}
    finals, tops = [], []
    for start in range(0, ids.shape[0], prompt_batch):
        here = (owner >= start) & (owner < start + prompt_batch)
        place = owner[here] - start, position[here]
        part, width = slice(start, start + prompt_batch), int(lengths[start:start + prompt_batch].max())
        capture = Capture(view, layers, want={*names, *(["final_hidden"] if final else [])},
                          stop_after="final" if final else max(layers))
        with capture as seen:
            view.model(
                input_ids=ids[part, :width].to(view.input_device),
                attention_mask=mask[part, :width].to(view.input_device),
                use_cache=False,
            )
        for name in names:
            for layer, tensor in getattr(seen, name).items():
                rows[name][layer].append(_at(tensor, place).to(device, dtype))
        if final:
            hidden = _at(seen.final_hidden, place)
            # in the model's own dtype and through its own norm, so that this is the token the model would say
            tops.append(view.logits(hidden).argmax(dim=-1))
            finals.append(hidden.to(device, dtype))
    stacked = {name: {layer: torch.cat(parts) for layer, parts in rows[name].items()} for name in names}
    return Readings(stacked["key"], stacked["resid_mid"], stacked["ffn_out"],
                    torch.cat(finals) if final else None, torch.cat(tops) if final else None)


def _at(tensor: Tensor, place: tuple[Tensor, Tensor]) -> Tensor:
    rows, positions = place
    return tensor[rows.to(tensor.device), positions.to(tensor.device)]


def written_columns(view: ModelView, layer: int, ffn_out: Tensor):
    """What neurons write to the residual stream: ``(neurons -> [d_model, n] columns, factor [B])``; neuron i writes ``factor * column_i``.

    With a norm behind the FFN (gemma2) it writes ``gain * v_i / rms_b``, the rms frozen at the real ``ffn_out [B, d_model]``; else
    ``v_i``. Both in the dtype and on the device of ``ffn_out``.
    """
    matrix, norm = view.down_matrix(layer), view.post_ffn_norm_parameters(layer)
    place = dict(device=ffn_out.device, dtype=ffn_out.dtype)
    factor = torch.ones_like(ffn_out[:, 0]) if norm is None else 1.0 / norm.scale(ffn_out)
    gain = None if norm is None else norm.gain.to(**place)

    def columns(neurons: slice = slice(None)) -> Tensor:
        part = matrix[:, neurons].to(**place)
        return part if gain is None else part * gain[:, None]

    return columns, factor
