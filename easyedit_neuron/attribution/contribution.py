"""FiNE's contribution of every FFN neuron to the tokens of a target (Eq. 3)."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..arch import ModelView
from ..errors import NeuronEditError
from .readings import WrittenColumns, read_prompts
from .targets import TargetTokens


@dataclass(frozen=True)
class Contributions:
    """Contributions to R tokens.

    Attributes:
        scores: ``{layer: [R, d_ff] float32}`` (float64 for a float64 model), on the device of the layer's
            edited weight.
        owner: ``[R]`` number of the prompt that a row belongs to, ascending (CPU).
        token_ids: ``[R]`` the tokens t (CPU).
    """

    scores: dict[int, Tensor]
    owner: Tensor
    token_ids: Tensor

    def of(self, prompt: int) -> dict[int, Tensor]:
        """``{layer: [r, d_ff]}``, the rows of one prompt."""
        rows = self.owner == prompt
        return {layer: scores[rows.to(scores.device)] for layer, scores in self.scores.items()}


@torch.no_grad()
def contribution_scores(
    view: ModelView,
    targets: TargetTokens,
    layers: Iterable[int],
    predicted: bool = False,
    prompt_batch: int = 32,
) -> Contributions:
    """``c_{t,i} = q_i (W_u W_down)_{t,i}`` of every neuron i of ``layers`` to every target token t (Eq. 3).

    q is read at the position that predicts t, in one forward over prompt and target. ``W_u`` is the
    unembedding without the final norm (paper and release); only its rows of target tokens are multiplied.
    Where a norm follows the FFN (gemma2), what neuron i writes replaces column i of ``W_down``:
    ``gain * v_i / rms(FFN output)``.

    Args:
        view: the model.
        targets: prompts and their targets (``target_tokens``).
        layers: layers to score.
        predicted: False (default, paper): t are the target's own tokens. True (release): t is the model's
            most probable token at each of the target's positions, behind the target's earlier tokens.
        prompt_batch: prompts per forward pass. Default 32.

    Returns:
        ``Contributions`` with one row per target token.

    Raises:
        NeuronEditError: no layers, or ``prompt_batch`` below 1.
        ArchitectureError: a layer that does not exist.
    """
    layers = list(layers)
    if not layers or prompt_batch < 1:
        raise NeuronEditError(
            f"contribution needs layers and a prompt_batch of at least 1, got {layers} and {prompt_batch}"
        )
    places = targets.owner, targets.position
    readings = read_prompts(view, targets.batch, layers, prompt_batch, places, final=predicted)
    tokens = readings.top1 if predicted else targets.token_ids
    weight, _ = view.unembedding()
    distinct_tokens, row_of_token = tokens.to(weight.device).unique(return_inverse=True)
    scores = {}
    for layer in layers:
        written = WrittenColumns.of(view, layer, readings.ffn_out[layer])
        projected = weight[distinct_tokens].to(written.factor.dtype) @ written.columns()
        contribution = readings.activations[layer] * projected[row_of_token] * written.factor[:, None]
        scores[layer] = contribution.to(view.device_of(layer))
    return Contributions(scores, targets.owner.cpu(), tokens.cpu())
