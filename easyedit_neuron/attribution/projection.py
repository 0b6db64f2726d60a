"""Log-probability of a token when one neuron at a time is amplified, for all neurons of a layer.

With the final norm's statistics frozen the logits are linear in the perturbation:

    logits(x_b + A q_bi v_i) = z_b + a_bi m_i,    a_bi = A q_bi / sigma_b,    m_i = U diag(g) v_i

(v_i centred first for LayerNorm). ``m = U diag(g) W_down`` does not depend on the prompt; ``logsumexp.py``
and ``fused.py`` sum over the vocabulary with each of its tiles made once for all prompts. At no time exists a
matrix [d_ff, d_model] per prompt, or one [d_ff, vocabulary].
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..arch import ModelView
from .logsumexp import CPU_CHUNKS, GPU_CHUNKS, perturbed_logsumexp
from .readings import Readings, written_columns


@dataclass(frozen=True)
class FrozenHead:
    """Final norm with frozen statistics, and unembedding: ``softcap(U (gain * centre(x) / sigma + norm_bias)
    + bias)``.

    The statistics are those of the input of the final norm, i.e. of the last block's output. It is what the
    released code uses too: its patched model file hands out the blocks' outputs (for blocks 4-8 and 31 only).

    Attributes:
        view: the model.
        sigma: ``[B, 1]`` the norm's denominator at the real final hidden state of each prompt.
        gain: ``[d_model]``.
        norm_bias: ``[d_model]``, or 0.
        centred: whether the norm takes the mean off.
    """

    view: ModelView
    sigma: Tensor
    gain: Tensor
    norm_bias: Tensor | float
    centred: bool

    @classmethod
    def of(cls, view: ModelView, final_hidden: Tensor, reference_quirks: bool = False) -> FrozenHead:
        """Freeze the norm at ``final_hidden [B, d_model]``.

        ``reference_quirks`` does as the released NMKE code: RMSNorm with eps 1e-6 whatever the model's own;
        LayerNorm without its bias and with ``std + 1e-5`` in place of ``sqrt(var + eps)``.
        """
        norm = view.final_norm_parameters()
        sigma = norm.scale(final_hidden)
        bias = norm.bias
        if reference_quirks and norm.centred:
            sigma, bias = final_hidden.var(dim=-1, unbiased=False).sqrt() + 1e-5, None
        elif reference_quirks:
            sigma = torch.sqrt(final_hidden.pow(2).mean(dim=-1) + 1e-6)
        place = dict(device=final_hidden.device, dtype=final_hidden.dtype)
        return cls(
            view,
            sigma[:, None],
            norm.gain.to(**place),
            0.0 if bias is None else bias.to(**place),
            norm.centred,
        )

    def directions(self, written: Tensor) -> Tensor:
        """What ``written [d_model, n]`` adds to the unembedding's input but for ``1 / sigma``."""
        return self.gain[:, None] * self._centre(written, 0)

    def logits(self, x: Tensor, tokens: int) -> Tensor:
        """``[B, vocab_size]`` of ``x [B, d_model]`` without soft cap; weights are converted ``tokens`` rows
        at a time."""
        weight, bias = self.view.unembedding()
        normed = self._centre(x, 1) / self.sigma * self.gain + self.norm_bias
        logits = torch.cat([normed @ part.to(normed.dtype).T for part in weight.split(tokens)], 1)
        return logits if bias is None else logits.add_(bias.to(logits.dtype))

    def _centre(self, x: Tensor, dim: int) -> Tensor:
        return x - x.mean(dim=dim, keepdim=True) if self.centred else x


@dataclass(frozen=True)
class LogProbabilities:
    """Log-probability of the targets, unperturbed ``base [B, 1]`` and per amplified neuron ``amplified [B,
    d_ff]``."""

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
) -> dict[int, LogProbabilities]:
    """``log p(w_b | x_b)`` and ``log p(w_b | x_b + A q_bi v_i)`` for every layer of ``readings``.

    Args:
        view: the model.
        readings: hidden states of B prompts.
        targets: ``[B]`` token ids w, on the readings' device.
        amplify: A.
        reference_quirks: see ``FrozenHead.of``.
        neuron_chunk, vocab_chunk: neurons and tokens handled at once; by device when unset (``CPU_CHUNKS``,
            ``GPU_CHUNKS``).

    Returns:
        ``{layer: LogProbabilities}``, compute dtype, on the readings' device.
    """
    head = FrozenHead.of(view, readings.final_hidden, reference_quirks)
    weight, _ = view.unembedding()
    chunks = CPU_CHUNKS if weight.device.type == "cpu" else GPU_CHUNKS
    neurons, tokens = (
        min(neuron_chunk or chunks.neurons, view.d_ff),
        min(vocab_chunk or chunks.tokens, len(weight)),
    )
    answers = weight[targets].to(head.gain.dtype)
    found = {}
    for layer, activations in readings.activations.items():
        columns, factor = written_columns(view, layer, readings.ffn_out[layer])
        scale = amplify * activations * factor[:, None] / head.sigma
        base = head.logits(readings.resid_mid[layer], tokens)
        target = base.gather(1, targets[:, None])
        before = view.softcap(target) - view.softcap(base).logsumexp(1, keepdim=True)
        after = torch.empty_like(scale)
        for first in range(0, view.d_ff, neurons):
            some = slice(first, first + neurons)
            added, moved = head.directions(columns(some)), scale[:, some]
            sums = perturbed_logsumexp(
                weight, added, base, moved, view.logit_softcap, tokens, chunks.elements
            )
            after[:, some] = view.softcap(target + moved * (answers @ added)) - sums
        # a silent neuron changes nothing: exactly nothing, not the rounding of two sums taken in different
        # orders
        found[layer] = LogProbabilities(before, torch.where(scale == 0, before, after))
    return found
