"""The logit lens: the tokens that a neuron's value vector points at (FiNE, Tables 6 and 8)."""

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
    """The k tokens t with the highest ``(W_u W_down)_{t,i}``: what neuron i adds to logits per activation.

    Where a norm follows the FFN (gemma2), its gain is applied. The denominators of norms depend on the
    prompt and change no ranking, so they are left out.

    Args:
        view: the model.
        tok: tokenizer; its ``decode`` spells the tokens, leading spaces included.
        layer: number of the block.
        neuron: number i of the neuron in the layer.
        k: number of tokens. Default 5.
        added: ``[d_model]``, a change of the value vector that is not in the model. Default: no change.
        final_norm: whether to apply the final norm's gain, and a LayerNorm's centring, before the
            unembedding. Default False, as in Eq. 3.

    Returns:
        k pairs (token, value), highest first.

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
    column = columns[:, neuron].to(weight.device, view.compute_dtype)
    if added is not None:
        column = column + added.to(column)
    post_ffn_norm = view.post_ffn_norm_parameters(layer)
    if post_ffn_norm is not None:
        column = column * post_ffn_norm.gain.to(column)
    column = column * view.ffn_multiplier
    if final_norm:
        norm = view.final_norm_parameters()
        column = (column - column.mean() if norm.centred else column) * norm.gain.to(column)
    # Converts the unembedding in parts, so that no full copy of a half-precision one is made.
    logits = torch.cat([part.to(column.dtype) @ column for part in weight.split(1 << 15)])
    top = logits.topk(k)
    return [(tok.decode([token]), value) for token, value in zip(top.indices.tolist(), top.values.tolist())]
