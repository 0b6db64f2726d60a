"""Scores of FFN neurons on prompts: LPS, PSA, MPC and the activation itself."""

from __future__ import annotations

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
from .projection import amplified_log_probs
from .readings import Readings, read_prompts, written_columns

log = logging.getLogger(__name__)

KINDS = ("lps", "psa", "mpc", "activation")
WITHOUT_TARGET = ("mpc", "activation")
FLOOR = 1e-8
"""Probabilities are clamped to at least this before logarithms and differences are taken (as in the released
code)."""


@dataclass(frozen=True)
class NeuronScores:
    """Scores of the FFN neurons of some layers on B prompts.

    Attributes:
        scores: ``{layer: [B, d_ff] float32}`` on the device of the layer's edited weight.
        activations: ``{layer: [B, d_ff]}`` neuron activations q at the last real token, same device.
        target_ids: ``[B]`` the tokens whose probability was followed (CPU); ``None`` for kinds that follow
            none.
    """

    scores: dict[int, Tensor]
    activations: dict[int, Tensor]
    target_ids: Tensor | None


def neuron_scores(
    view: ModelView,
    batch,
    layers: Iterable[int],
    kind: Literal["lps", "psa", "mpc", "activation"] = "lps",
    amplify: float = 30.0,
    target: Literal["predicted"] | Tensor | Sequence[int] = "predicted",
    reference_quirks: bool = False,
    neuron_chunk: int | None = None,
    vocab_chunk: int | None = None,
    prompt_batch: int = 32,
) -> NeuronScores:
    """Score every FFN neuron of ``layers`` on every prompt, read at the prompt's last real token.

    - ``lps``, log-probability shift (NMKE Eq. 2-3): ``log p(w | x + A q_i v_i) - log p(w | x)``, x = residual
      stream after attention before the FFN is added, q_i = activation, v_i = column i of W_down, p = softmax
      of the unembedding behind the final norm, its statistics frozen at the real final hidden state (RMSNorm:
      the rms; LayerNorm: the standard deviation, while the mean is that of the perturbed vector).
    - ``psa``, probability shift: the same with p in place of log p.
    - ``mpc``, MLP projection coefficient: ``|q_i| * ||v_i||``; no unembedding, no target: the forward ends at
      the last layer.
    - ``activation``: ``|q_i|`` alone; likewise.

    Probabilities are clamped at 1e-8 from below. Where a norm follows the FFN (gemma2) v_i stands for what
    the neuron really writes, ``gain * v_i / rms(FFN output)``, in the first three.

    Args:
        view: the model.
        batch: ``tokens.Batch`` of B prompts, right-padded: ``input_ids [B, T]``, ``attention_mask [B, T]``,
            ``lengths [B]``.
        layers: layers to score.
        kind: which score.
        amplify: A.
        target: ``"predicted"`` (the model's own top-1 next token) or B token ids.
        reference_quirks: compute as the released code does: LayerNorm without bias and with ``std + 1e-5``,
            RMSNorm with eps 1e-6. (The release also reads position -1 of a right-padded batch, a pad token
            for all but the longest prompt; that is never done here.)
        neuron_chunk, vocab_chunk: neurons and tokens handled at once, by device when unset; memory grows with
            their product.
        prompt_batch: prompts per forward pass.

    Returns:
        ``NeuronScores``; non-finite scores (an overflow of half-precision activations) are 0, as in the
        release, and logged.

    Raises:
        NeuronEditError: unknown kind, wrong number or range of targets, a chunk size below 1, ``amplify`` not
            finite.
        ArchitectureError: a layer that does not exist.
    """
    _check(kind, amplify, neuron_chunk, vocab_chunk, prompt_batch)
    _targets(target, batch.input_ids.shape[0], view.vocab_size)
    readings = read_prompts(view, batch, list(layers), prompt_batch, final=kind not in WITHOUT_TARGET)
    return score_readings(view, readings, kind, amplify, target, reference_quirks, neuron_chunk, vocab_chunk)


@torch.no_grad()
def score_readings(
    view: ModelView,
    readings: Readings,
    kind: Literal["lps", "psa", "mpc", "activation"] = "lps",
    amplify: float = 30.0,
    target: Literal["predicted"] | Tensor | Sequence[int] = "predicted",
    reference_quirks: bool = False,
    neuron_chunk: int | None = None,
    vocab_chunk: int | None = None,
) -> NeuronScores:
    """``neuron_scores`` of prompts that have been run and read already (``Readings.of``); arguments and
    result as there."""
    _check(kind, amplify, neuron_chunk, vocab_chunk)
    targets = None
    if kind == "activation":
        raw = {layer: q.abs() for layer, q in readings.activations.items()}
    elif kind == "mpc":
        raw = {layer: _projection_coefficient(view, readings, layer) for layer in readings.activations}
    else:
        given = _targets(target, len(readings.final_hidden), view.vocab_size)
        targets = readings.top1 if given is None else given.to(readings.top1.device)
        raw = {}
        logs = amplified_log_probs(
            view, readings, targets, amplify, reference_quirks, neuron_chunk, vocab_chunk
        )
        for layer, value in logs.items():
            base, amplified = (p.clamp(min=math.log(FLOOR), max=0.0) for p in (value.base, value.amplified))
            raw[layer] = amplified - base if kind == "lps" else amplified.exp() - base.exp()
    scores = {layer: _finite(score, layer).float().to(view.device_of(layer)) for layer, score in raw.items()}
    activations = {layer: q.to(view.device_of(layer)) for layer, q in readings.activations.items()}
    return NeuronScores(scores, activations, None if targets is None else targets.cpu())


def _projection_coefficient(view: ModelView, readings: Readings, layer: int) -> Tensor:
    columns, factor = written_columns(view, layer, readings.ffn_out[layer])
    return readings.activations[layer].abs() * columns().norm(dim=0) * factor[:, None]


def _finite(scores: Tensor, layer: int) -> Tensor:
    bad = int((~torch.isfinite(scores)).sum())
    if bad:
        log.warning(
            "layer %d: %d of %d neuron scores are not finite and count as 0", layer, bad, scores.numel()
        )
    return torch.nan_to_num(scores, nan=0.0, posinf=0.0, neginf=0.0)


def _targets(target, prompts: int, vocab_size: int) -> Tensor | None:
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


def _check(kind: str, amplify: float, neuron_chunk, vocab_chunk, prompt_batch=None) -> None:
    if kind not in KINDS:
        raise NeuronEditError(f"kind of attribution {kind!r} is unknown: {did_you_mean(kind, KINDS)}")
    if not math.isfinite(amplify):
        raise NeuronEditError(f"amplify must be finite, got {amplify}")
    for name, value in (
        ("neuron_chunk", neuron_chunk),
        ("vocab_chunk", vocab_chunk),
        ("prompt_batch", prompt_batch),
    ):
        if value is not None and value < 1:
            raise NeuronEditError(f"{name} must be at least 1, got {value}")
