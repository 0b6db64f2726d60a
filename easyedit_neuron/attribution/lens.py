"""What a neuron says: the tokens that its value vector points at (logit lens; FiNE, Tables 6 and 8)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..arch import ModelView
from ..errors import NeuronEditError


@torch.no_grad()
def top_tokens(
    view: ModelView,
    tok,
    layer: int,
    neuron: int,
    k: int = 5,
    *,
    added: Tensor | None = None,
    final_norm: bool = False,
) -> list[tuple[str, float]]:
    """The k tokens with the highest ``(W_u W_down)_{t,i}``: what neuron i of the layer adds to logits per
    unit of activation.

    Without the final norm, as in Eq. 3; with the gain of a norm behind the FFN (gemma2), whose denominator
    depends on the prompt and changes no ranking.

    Args:
        view: the model.
        tok: tokenizer; its ``decode`` spells the tokens, leading spaces included.
        layer, neuron: of the neuron.
        k: number of tokens.
        added: ``[d_model]``, a change of the value vector that the model does not have (yet).
        final_norm: what the model's own unembedding makes of the vector: with the final norm's gain, a
            LayerNorm's centring too. Its denominator, which depends on the prompt, is left out; it changes no
            ranking.

    Returns:
        k pairs (token, value), highest first, values in the compute dtype.

    Raises:
        NeuronEditError: no such neuron, or k not in 1 .. vocabulary.
        ArchitectureError: no such layer.

    Example:
        >>> top_tokens(ModelView.of(model), tok, layer=24, neuron=5708)
    """
    columns = view.down_matrix(layer)
    if not 0 <= neuron < view.d_ff:
        raise NeuronEditError(f"neuron {neuron} does not exist: a layer has neurons 0 to {view.d_ff - 1}")
    if not 1 <= k <= view.vocab_size:
        raise NeuronEditError(f"k must lie in 1..{view.vocab_size}, got {k}")
    weight, _ = view.unembedding()
    column, gain = columns[:, neuron].to(weight.device, view.compute_dtype), view.ffn_value_gain(layer)
    column = column if added is None else column + added.to(column)
    column = column if gain is None else column * gain.to(column)
    if final_norm:
        norm = view.final_norm_parameters()
        column = (column - column.mean() if norm.centred else column) * norm.gain.to(column)
    # rows of the unembedding a part at a time: a half-precision one need not be copied as a whole
    said = torch.cat([part.to(column.dtype) @ column for part in weight.split(1 << 15)])
    best = said.topk(k)
    return [(tok.decode([token]), value) for token, value in zip(best.indices.tolist(), best.values.tolist())]
