"""Scores of FFN neurons on prompts: LPS, PSA, MPC and the activation itself."""

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..arch import ModelView
from ..errors import NeuronEditError
from ..utils.suggest import did_you_mean
from .projection import VocabSum, amplified_log_probs
from .readings import Readings, WrittenColumns, read_prompts

LOG = logging.getLogger(__name__)

Kind = Literal["lps", "psa", "mpc", "activation"]
Target = Literal["predicted"] | Tensor | Sequence[int]
KINDS = ("lps", "psa", "mpc", "activation")
WITHOUT_TARGET = ("mpc", "activation")
FLOOR = 1e-8
"""Lower bound of probabilities before logarithms and differences are taken, as in the released code."""


@dataclass(frozen=True)
class NeuronScores:
    """Scores of the FFN neurons of some layers on B prompts.

    Attributes:
        scores: ``{layer: [B, d_ff] float32}`` on the device of the layer's edited weight.
        activations: ``{layer: [B, d_ff]}`` neuron activations q at the last token, same device.
        target_ids: ``[B]`` the tokens whose probability was followed (CPU); ``None`` for kinds without one.
    """

    scores: dict[int, Tensor]
    activations: dict[int, Tensor]
    target_ids: Tensor | None


def neuron_scores(
    view: ModelView,
    batch,
    layers: Iterable[int],
    kind: Kind = "lps",
    amplify: float = 30.0,
    target: Target = "predicted",
    reference_quirks: bool = False,
    neuron_chunk: int | None = None,
    vocab_chunk: int | None = None,
    prompt_batch: int = 32,
    vocab_sum: VocabSum = "exact",
) -> NeuronScores:
    """Score every FFN neuron of ``layers`` on every prompt, read at the prompt's last token.

    - ``lps``, log-probability shift (NMKE Eq. 2-3): ``log p(w | x + A q_i v_i) - log p(w | x)``. x is the
      residual stream after attention before the FFN is added, q_i the activation and v_i column i of W_down.
      p is the softmax of the unembedding behind the final norm. The norm's statistics are frozen at the real
      final hidden state: the rms of an RMSNorm, the standard deviation of a LayerNorm (not its mean).
    - ``psa``, probability shift: the same with p in place of log p.
    - ``mpc``, MLP projection coefficient: ``|q_i| * ||v_i||``. It needs no unembedding and no target, so the
      forward ends at the last layer.
    - ``activation``: ``|q_i|``, likewise.

    Probabilities are clamped to at least 1e-8. Where a norm follows the FFN (gemma2), v_i in the first three
    is what the neuron really writes, ``gain * v_i / rms(FFN output)``.

    Args:
        view: the model.
        batch: ``tokens.Batch`` of B prompts, right-padded: ``input_ids [B, T]``, ``attention_mask [B, T]``,
            ``lengths [B]``.
        layers: layers to score.
        kind: which score. Default ``lps``.
        amplify: A. Default 30.
        target: w, as B token ids. Default ``"predicted"``: the model's most probable next token.
        reference_quirks: whether to compute as the released code: LayerNorm without bias and with
            ``std + 1e-5``, RMSNorm with eps 1e-6. Its reading of position -1, a pad token for all but the
            longest prompt, is not reproduced. Default False.
        neuron_chunk, vocab_chunk: neurons and tokens handled at once; memory grows with their product.
            Default: by device.
        prompt_batch: prompts per forward pass. Default 32.
        vocab_sum: ``"sampled"`` estimates the sum over the vocabulary; see ``amplified_log_probs``. Default
            ``"exact"``.

    Returns:
        ``NeuronScores``. Non-finite scores (half-precision activations may overflow) are logged and set to
        0, as in the release.

    Raises:
        NeuronEditError: an unknown kind, a wrong number or range of targets, a chunk size below 1, a
            non-finite ``amplify``.
        ArchitectureError: a layer that does not exist.
    """
    _check(kind, amplify, neuron_chunk=neuron_chunk, vocab_chunk=vocab_chunk, prompt_batch=prompt_batch)
    _targets(target, batch.input_ids.shape[0], view.vocab_size)
    readings = read_prompts(view, batch, list(layers), prompt_batch, final=kind not in WITHOUT_TARGET)
    chunks = neuron_chunk, vocab_chunk
    return score_readings(view, readings, kind, amplify, target, reference_quirks, *chunks, vocab_sum)


@torch.no_grad()
def score_readings(
    view: ModelView,
    readings: Readings,
    kind: Kind = "lps",
    amplify: float = 30.0,
    target: Target = "predicted",
    reference_quirks: bool = False,
    neuron_chunk: int | None = None,
    vocab_chunk: int | None = None,
    vocab_sum: VocabSum = "exact",
) -> NeuronScores:
    """``neuron_scores`` of hidden states that were read before; arguments and result as there."""
    _check(kind, amplify, neuron_chunk=neuron_chunk, vocab_chunk=vocab_chunk)
    target_ids = None
    if kind == "activation":
        raw = {layer: q.abs() for layer, q in readings.activations.items()}
    elif kind == "mpc":
        raw = {layer: _projection_coefficient(view, readings, layer) for layer in readings.activations}
    else:
        target_ids = _targets(target, len(readings.final_hidden), view.vocab_size)
        target_ids = readings.top1 if target_ids is None else target_ids.to(readings.top1.device)
        log_probs = amplified_log_probs(
            view, readings, target_ids, amplify, reference_quirks, neuron_chunk, vocab_chunk, vocab_sum
        )
        raw = {}
        for layer, value in log_probs.items():
            base, amplified = (p.clamp(min=math.log(FLOOR), max=0.0) for p in (value.base, value.amplified))
            raw[layer] = amplified - base if kind == "lps" else amplified.exp() - base.exp()
    scores = {layer: _finite(score, layer).float().to(view.device_of(layer)) for layer, score in raw.items()}
    activations = {layer: q.to(view.device_of(layer)) for layer, q in readings.activations.items()}
    return NeuronScores(scores, activations, None if target_ids is None else target_ids.cpu())


def _projection_coefficient(view: ModelView, readings: Readings, layer: int) -> Tensor:
    written = WrittenColumns.of(view, layer, readings.ffn_out[layer])
    return readings.activations[layer].abs() * written.columns().norm(dim=0) * written.factor[:, None]


def _finite(scores: Tensor, layer: int) -> Tensor:
    count = int((~torch.isfinite(scores)).sum())
    if count:
        LOG.warning("layer %d: %d of %d neuron scores are not finite, set to 0", layer, count, scores.numel())
    return torch.nan_to_num(scores, nan=0.0, posinf=0.0, neginf=0.0)


def _targets(target: Target, prompts: int, vocab_size: int) -> Tensor | None:
    if isinstance(target, str):
        if target != "predicted":
            raise NeuronEditError(f'target: expected "predicted" or token ids, got {target!r}')
        return None
    ids = torch.as_tensor(target)
    if ids.shape != (prompts,) or ids.is_floating_point() or ids.dtype == torch.bool:
        raise NeuronEditError(
            f"target: expected {prompts} token ids, one per prompt, got {ids.dtype} {list(ids.shape)}"
        )
    if int(ids.min()) < 0 or int(ids.max()) >= vocab_size:
        raise NeuronEditError(
            f"target: token ids must lie in 0..{vocab_size - 1}, got {int(ids.min())}..{int(ids.max())}"
        )
    return ids.long()


def _check(kind: str, amplify: float, **sizes: int | None) -> None:
    if kind not in KINDS:
        raise NeuronEditError(f"kind of attribution {kind!r} is unknown: {did_you_mean(kind, KINDS)}")
    if not math.isfinite(amplify):
        raise NeuronEditError(f"amplify must be finite, got {amplify}")
    for name, size in sizes.items():
        if size is not None and size < 1:
            raise NeuronEditError(f"{name} must be at least 1, got {size}")
