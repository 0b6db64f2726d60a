"""The hidden states that attribution needs, read at the last token of each prompt or at given positions."""

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
        final_hidden: ``[B, d_model]`` input of the final norm; ``None`` if it was not captured.
        top1: ``[B]`` the model's most probable next token; ``None`` if ``final_hidden`` is.
    """

    activations: dict[int, Tensor]
    resid_mid: dict[int, Tensor]
    ffn_out: dict[int, Tensor]
    final_hidden: Tensor | None
    top1: Tensor | None

    @classmethod
    def of(cls, view: ModelView, seen: Capture, rows: Tensor, positions: Tensor) -> Readings:
        """Read the places ``(rows [B], positions [B])`` of a forward.

        Args:
            view: the model.
            seen: the forward's capture with ``key``, ``resid_mid`` and ``ffn_out``, perhaps ``final_hidden``.
            rows, positions: int64 ``[B]``, indices into batch and tokens.
        """
        device, dtype = view.unembedding()[0].device, view.compute_dtype

        def read(states: Tensor) -> Tensor:
            return take(states, rows, positions).detach()

        layer_states = (
            {layer: read(states).to(device, dtype) for layer, states in captured.items()}
            for captured in (seen.key, seen.resid_mid, seen.ffn_out)
        )
        if seen.final_hidden is None:
            return cls(*layer_states, None, None)
        hidden = read(seen.final_hidden)
        # In the model's own dtype and through its own norm, so that this is the token the model would say.
        top1 = view.logits(hidden).argmax(dim=-1)
        return cls(*layer_states, hidden.to(device, dtype), top1)

    def covers(self, layers: Sequence[int]) -> bool:
        """Whether all of these layers were read."""
        return set(layers) <= self.activations.keys()

    @classmethod
    def joined(cls, parts: Sequence[Readings]) -> Readings:
        """Concatenate the places of several readings of the same layers."""
        layer_states = (
            {
                layer: torch.cat([getattr(part, name)[layer] for part in parts])
                for layer in getattr(parts[0], name)
            }
            for name in ("activations", "resid_mid", "ffn_out")
        )
        if parts[0].final_hidden is None:
            return cls(*layer_states, None, None)
        hidden, top1 = ([getattr(part, name) for part in parts] for name in ("final_hidden", "top1"))
        return cls(*layer_states, torch.cat(hidden), torch.cat(top1))


@torch.no_grad()
def read_prompts(
    view: ModelView,
    batch,
    layers: Sequence[int],
    prompt_batch: int = 32,
    at: tuple[Tensor, Tensor] | None = None,
    final: bool = True,
) -> Readings:
    """Run the prompts and read one position of each, or the positions ``at``.

    Args:
        view: the model.
        batch: ``tokens.Batch`` with ``input_ids [P, T]``, ``attention_mask [P, T]``, ``lengths [P]``,
            right-padded.
        layers: layers to read.
        prompt_batch: prompts per forward pass; it bounds the memory at ``prompt_batch * T * d_ff`` numbers
            per layer. Default 32.
        at: ``(rows [B], positions [B])``, rows ascending. Default: the last token of every prompt (B = P).
        final: whether to read ``final_hidden`` and ``top1``. Without them the forward ends at the last of
            ``layers``. Default True.

    Raises:
        NeuronEditError: an empty batch, or a prompt without a token.
    """
    ids, mask = batch.input_ids, batch.attention_mask
    lengths = torch.as_tensor(batch.lengths, device="cpu")
    if ids.shape[0] == 0:
        raise NeuronEditError("attribution needs at least one prompt; the batch is empty")
    if int(lengths.min()) < 1:
        raise NeuronEditError(f"prompt {int(lengths.argmin())} of the batch has no tokens")
    rows, positions = (torch.arange(len(lengths)), lengths - 1) if at is None else (x.cpu() for x in at)
    want = {"key", "resid_mid", "ffn_out", *(["final_hidden"] if final else [])}
    parts = []
    for start in range(0, ids.shape[0], prompt_batch):
        part = slice(start, start + prompt_batch)
        width = int(lengths[part].max())
        with Capture(view, layers, want, stop_after="final" if final else max(layers)) as seen:
            view.model(
                input_ids=ids[part, :width].to(view.input_device),
                attention_mask=mask[part, :width].to(view.input_device),
                use_cache=False,
            )
        in_part = (rows >= part.start) & (rows < part.stop)
        parts.append(Readings.of(view, seen, rows[in_part] - start, positions[in_part]))
    return Readings.joined(parts)


@dataclass(frozen=True)
class WrittenColumns:
    """What neuron i of a layer writes to the residual stream per activation: ``factor_b * column_i``.

    ``column_i`` is ``v_i`` and the factor 1. With a norm behind the FFN (gemma2) they are ``gain * v_i`` and
    ``1 / rms_b``, the rms frozen at the real output of the FFN. Granite's factor is the residual multiplier.

    Attributes:
        matrix: ``[d_model, d_ff]``, W_down in the model's dtype.
        gain: ``[d_model]`` or ``None``.
        factor: ``[B]``; its dtype is that of the columns.
    """

    matrix: Tensor
    gain: Tensor | None
    factor: Tensor

    @classmethod
    def of(cls, view: ModelView, layer: int, ffn_out: Tensor) -> WrittenColumns:
        """Of a layer at the down projection's outputs ``ffn_out [B, d_model]``, in their dtype."""
        norm = view.post_ffn_norm_parameters(layer)
        if norm is None:
            factor = torch.full_like(ffn_out[:, 0], view.ffn_multiplier)
            return cls(view.down_matrix(layer), None, factor)
        return cls(view.down_matrix(layer), norm.gain.to(ffn_out), 1.0 / norm.scale(ffn_out))

    def columns(self, neurons: slice = slice(None)) -> Tensor:
        """Columns ``[d_model, n]``; default: of all neurons."""
        columns = self.matrix[:, neurons].to(self.factor)
        return columns if self.gain is None else columns * self.gain[:, None]
