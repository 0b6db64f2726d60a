"""What the attribution needs of each prompt, read at its last real token or at positions that are given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..arch import Capture, ModelView, take
from ..errors import NeuronEditError


@dataclass
class Readings:
    """Hidden states at B places (a prompt and a position), in the compute dtype, on the unembedding's device.

    Attributes:
        activations: ``{layer: [B, d_ff]}`` neuron activations q.
        resid_mid: ``{layer: [B, d_model]}`` residual stream before the FFN is added.
        ffn_out: ``{layer: [B, d_model]}`` output of the down projection.
        final_hidden: ``[B, d_model]`` input of the final norm; ``None`` where it was not captured.
        top1: ``[B]`` the model's own most probable next token; ``None`` likewise.
    """

    activations: dict[int, Tensor]
    resid_mid: dict[int, Tensor]
    ffn_out: dict[int, Tensor]
    final_hidden: Tensor | None
    top1: Tensor | None

    @classmethod
    def of(cls, view: ModelView, seen: Capture, rows: Tensor, positions: Tensor) -> Readings:
        """The places ``(rows [B], positions [B])`` of a forward whose ``key``, ``resid_mid`` and ``ffn_out``
        were captured."""
        device = view.unembedding()[0].device

        def at(tensor: Tensor) -> Tensor:
            return take(tensor, rows, positions).detach()

        hidden = None if seen.final_hidden is None else at(seen.final_hidden)
        states = (
            {layer: at(tensor).to(device, view.compute_dtype) for layer, tensor in found.items()}
            for found in (seen.key, seen.resid_mid, seen.ffn_out)
        )
        # in the model's own dtype and through its own norm, so that this is the token the model would say
        top1 = None if hidden is None else view.logits(hidden).argmax(dim=-1)
        return cls(*states, None if hidden is None else hidden.to(device, view.compute_dtype), top1)

    @classmethod
    def joined(cls, parts: Sequence[Readings]) -> Readings:
        """One after the other."""

        def rows(tensors):
            return None if tensors[0] is None else torch.cat(tensors)

        states = (
            {layer: rows([getattr(part, name)[layer] for part in parts]) for layer in getattr(parts[0], name)}
            for name in ("activations", "resid_mid", "ffn_out")
        )
        return cls(*states, rows([part.final_hidden for part in parts]), rows([part.top1 for part in parts]))


@torch.no_grad()
def read_prompts(
    view: ModelView,
    batch,
    layers: Sequence[int],
    prompt_batch: int = 32,
    at: tuple[Tensor, Tensor] | None = None,
    final: bool = True,
) -> Readings:
    """Run the prompts, ``prompt_batch`` at a time, and keep one token of each, or the tokens at ``at``.

    Args:
        view: the model.
        batch: ``tokens.Batch`` with ``input_ids [P, T]``, ``attention_mask [P, T]``, ``lengths [P]``
            (right-padded).
        layers: layers to read.
        prompt_batch: prompts per forward pass; bounds the memory at ``prompt_batch * T * d_ff`` numbers per
            layer.
        at: ``(rows [B], positions [B])``, the rows ascending; unset: every prompt's last real token (B = P).
        final: also read ``final_hidden`` and ``top1``; without them the forward ends at the last of
            ``layers``.

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
    want = {"key", "resid_mid", "ffn_out", *(["final_hidden"] if final else [])}
    stop = "final" if final else max(layers)
    parts = []
    for start in range(0, ids.shape[0], prompt_batch):
        here = (owner >= start) & (owner < start + prompt_batch)
        part, width = slice(start, start + prompt_batch), int(lengths[start : start + prompt_batch].max())
        with Capture(view, layers, want, stop) as seen:
            view.model(
                input_ids=ids[part, :width].to(view.input_device),
                attention_mask=mask[part, :width].to(view.input_device),
                use_cache=False,
            )
        parts.append(Readings.of(view, seen, owner[here] - start, position[here]))
    return Readings.joined(parts)


def written_columns(view: ModelView, layer: int, ffn_out: Tensor):
    """What neurons write to the residual stream: ``(neurons -> [d_model, n] columns, factor [B])``.

    Neuron i writes ``factor * column_i`` for an activation of 1: ``v_i``, or with a norm behind the FFN
    (gemma2) ``gain * v_i / rms_b``, the rms frozen at the real ``ffn_out [B, d_model]``. Dtype and device are
    those of ``ffn_out``.
    """
    matrix, norm = view.down_matrix(layer), view.post_ffn_norm_parameters(layer)
    place = dict(device=ffn_out.device, dtype=ffn_out.dtype)
    factor = torch.ones_like(ffn_out[:, 0]) if norm is None else 1.0 / norm.scale(ffn_out)
    gain = None if norm is None else norm.gain.to(**place)

    def columns(neurons: slice = slice(None)) -> Tensor:
        part = matrix[:, neurons].to(**place)
        return part if gain is None else part * gain[:, None]

    return columns, factor
