"""Log-probability of a token when one neuron at a time is amplified, for all neurons of a layer.

With the final norm's statistics frozen the logits are linear in the perturbation:

    logits(x_b + A q_bi v_i) = z_b + a_bi m_i,    a_bi = A q_bi / sigma_b,    m_i = U diag(g) v_i

(v_i centred first for LayerNorm). ``m = U diag(g) W_down`` does not depend on the prompt. ``logsumexp.py``
and ``fused.py`` compute each of its tiles once for all prompts. No matrix [d_ff, d_model] per prompt or
[d_ff, vocabulary] ever exists.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..arch import ModelView
from .logsumexp import CPU_CHUNKS, GPU_CHUNKS, perturbed_logsumexp
from .readings import Readings, WrittenColumns
from .sampled import VocabularySample, exact_where

VocabSum = Literal["exact", "sampled"]
TOLERANCE = 0.5
"""A sampled sum is made exact where its standard error is above this share of the spread of the scores over a
prompt's neurons."""


@dataclass(frozen=True)
class FrozenHead:
    """Final norm with frozen statistics, and unembedding.

    ``logits(x) = U (gain * centre(x) / sigma + norm_bias) + bias``, before the soft cap. A factor of the
    model's logits is part of gain and biases. The statistics are
    those of the final norm's real input, the last block's output, as in the released code.

    Attributes:
        view: the model.
        sigma: ``[B, 1]`` the norm's denominator at the real final hidden state of each prompt.
        gain: ``[d_model]``.
        norm_bias: ``[d_model]``, or 0.
        centred: whether the norm subtracts the mean.
    """

    view: ModelView
    sigma: Tensor
    gain: Tensor
    norm_bias: Tensor | float
    centred: bool

    @classmethod
    def of(cls, view: ModelView, final_hidden: Tensor, reference_quirks: bool = False) -> FrozenHead:
        """Freeze the norm at ``final_hidden [B, d_model]``.

        ``reference_quirks`` follows the released NMKE code: RMSNorm with eps 1e-6 whatever the model's own;
        LayerNorm without its bias and with ``std + 1e-5`` in place of ``sqrt(var + eps)``.
        """
        norm = view.final_norm_parameters()
        sigma, bias = norm.scale(final_hidden), norm.bias
        if reference_quirks and norm.centred:
            sigma, bias = final_hidden.var(dim=-1, unbiased=False).sqrt() + 1e-5, None
        elif reference_quirks:
            sigma = torch.sqrt(final_hidden.pow(2).mean(dim=-1) + 1e-6)
        norm_bias = 0.0 if bias is None else bias.to(final_hidden) * view.logit_scale
        gain = norm.gain.to(final_hidden) * view.logit_scale
        return cls(view, sigma[:, None], gain, norm_bias, norm.centred)

    def directions(self, written: Tensor) -> Tensor:
        """``sigma`` times what ``written [d_model, n]`` adds to the unembedding's input; ``[d_model, n]``."""
        return self.gain[:, None] * self._centre(written, 0)

    def logits(self, x: Tensor, tokens: int) -> Tensor:
        """Logits ``[B, vocab_size]`` of ``x [B, d_model]`` before the soft cap.

        The weights are converted to the dtype of ``x``, ``tokens`` rows at a time.
        """
        weight, bias = self.view.unembedding()
        normed = self._centre(x, 1) / self.sigma * self.gain + self.norm_bias
        logits = torch.cat([normed @ part.to(normed.dtype).T for part in weight.split(tokens)], 1)
        return logits if bias is None else logits.add_(bias.to(logits.dtype), alpha=self.view.logit_scale)

    def _centre(self, x: Tensor, dim: int) -> Tensor:
        return x - x.mean(dim=dim, keepdim=True) if self.centred else x


@dataclass(frozen=True)
class LogProbabilities:
    """Log-probabilities of the targets.

    Attributes:
        base: ``[B, 1]`` without a perturbation.
        amplified: ``[B, d_ff]`` with one neuron amplified at a time.
    """

    base: Tensor
    amplified: Tensor


@torch.no_grad()
def amplified_log_probs(
    view: ModelView,
    readings: Readings,
    targets: Tensor,
    amplify: float,
    reference_quirks: bool = False,
    neuron_chunk: int | None = None,
    vocab_chunk: int | None = None,
    vocab_sum: VocabSum = "exact",
) -> dict[int, LogProbabilities]:
    """``log p(w_b | x_b)`` and ``log p(w_b | x_b + A q_bi v_i)`` for every layer of ``readings``.

    Args:
        view: the model.
        readings: hidden states of B prompts.
        targets: ``[B]`` token ids w, on the readings' device.
        amplify: A.
        reference_quirks: see ``FrozenHead.of``. Default False.
        neuron_chunk, vocab_chunk: neurons and tokens handled at once. Default: by device (``CPU_CHUNKS``,
            ``GPU_CHUNKS``).
        vocab_sum: ``"sampled"``: the sum over the vocabulary from some hundred tokens (``sampled.py``), and
            exact for the neurons where that is not sure enough; a model with a soft cap is summed exactly.

    Returns:
        ``{layer: LogProbabilities}`` in the compute dtype, on the readings' device.
    """
    head = FrozenHead.of(view, readings.final_hidden, reference_quirks)
    weight, _ = view.unembedding()
    chunks = CPU_CHUNKS if weight.device.type == "cpu" else GPU_CHUNKS
    neurons_at_once = min(neuron_chunk or chunks.neurons, view.d_ff)
    tokens_at_once = min(vocab_chunk or chunks.tokens, len(weight))
    target_rows = weight[targets].to(head.gain.dtype)
    log_probs = {}

    for layer, activations in readings.activations.items():
        written = WrittenColumns.of(view, layer, readings.ffn_out[layer])
        scale = amplify * activations * written.factor[:, None] / head.sigma
        # Log-probability without a perturbation.
        logits = head.logits(readings.resid_mid[layer], tokens_at_once)
        target_logit = logits.gather(1, targets[:, None])
        base = view.softcap(target_logit) - view.softcap(logits).logsumexp(1, keepdim=True)
        # The same with each neuron amplified, a chunk of neurons at a time.
        moved_logits, sums = torch.empty_like(scale), torch.empty_like(scale)
        unsure = torch.zeros_like(scale, dtype=torch.bool)
        sample = None
        if vocab_sum == "sampled" and view.logit_softcap is None:
            sample = VocabularySample.of(weight, logits)
        for first in range(0, view.d_ff, neurons_at_once):
            chunk = slice(first, first + neurons_at_once)
            directions, chunk_scale = head.directions(written.columns(chunk)), scale[:, chunk]
            moved = moved_logits[:, chunk] = view.softcap(
                target_logit + chunk_scale * (target_rows @ directions)
            )
            if sample is None:
                sizes = tokens_at_once, chunks.elements
                sums[:, chunk] = perturbed_logsumexp(
                    weight, directions, logits, chunk_scale, view.logit_softcap, *sizes
                )
                continue
            sums[:, chunk], errors = sample.logsumexp(weight, directions, chunk_scale)
            unsure[:, chunk] = errors > TOLERANCE * (moved - sums[:, chunk]).std(1, keepdim=True)
        if unsure.any():
            needed = unsure.any(0).nonzero().squeeze(1)
            directions, pairs = head.directions(written.columns(needed)), unsure[:, needed]
            factors = scale[:, needed]
            sums[unsure] = exact_where(pairs, weight, directions, logits, factors, chunks.elements)
        amplified = moved_logits - sums
        # A silent neuron changes exactly nothing; two sums in different order could differ by rounding.
        log_probs[layer] = LogProbabilities(base, torch.where(scale == 0, base, amplified))
    return log_probs
