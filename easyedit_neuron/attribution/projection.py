"""Log-probability of a token when one neuron at a time is amplified, for all neurons of a layer.

With the final norm's statistics frozen the logits are linear in the perturbation:

    logits(x_b + A q_bi v_i) = z_b + a_bi m_i,    a_bi = A q_bi / sigma_b,    m_i = U diag(g) v_i

(v_i centred first for LayerNorm). ``m = U diag(g) W_down`` does not depend on the prompt, so each of its chunks is
made once for all prompts, and the softmax over the vocabulary is a running maximum and sum over chunks. At no time
exists a matrix [d_ff, d_model] per prompt, or one [d_ff, vocabulary].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

import torch
from torch import Tensor

from ..arch import ModelView
from .readings import Readings, written_columns

@dataclass(frozen=True)
class Chunks:
    """Neurons and tokens handled at once, and numbers in the largest temporary ``[prompts, tokens, neurons]``."""

    neurons: int
    tokens: int
    elements: int


# a CPU is fastest while the temporary stays in its cache (1 MiB in float32), a GPU with few large kernels (64 MiB)
CPU_CHUNKS = Chunks(512, 512, 1 << 18)
GPU_CHUNKS = Chunks(1024, 4096, 1 << 24)


@dataclass(frozen=True)
class FrozenHead:
    """Final norm with frozen statistics, and unembedding: ``logits = softcap(rows @ centre(x) / sigma + offset)``.

    The statistics are those of the input of the final norm, i.e. of the last block's output. It is what the released code
    uses too: its patched model file hands out the blocks' outputs (for blocks 4-8 and 31 only).

    Attributes:
        view: the model.
        sigma: ``[B]`` the norm's denominator at the real final hidden state of each prompt.
        gain: ``[d_model]``.
        norm_bias: ``[d_model]`` or ``None``.
        centred: whether the norm takes the mean off.
    """

    view: ModelView
    sigma: Tensor
    gain: Tensor
    norm_bias: Optional[Tensor]
    centred: bool

    @classmethod
    def of(cls, view: ModelView, final_hidden: Tensor, reference_quirks: bool = False) -> "FrozenHead":
        """Freeze the norm at ``final_hidden [B, d_model]``.

        ``reference_quirks`` does as the released NMKE code: RMSNorm with eps 1e-6 whatever the model's own; LayerNorm
        without its bias and with ``std + 1e-5`` in place of ``sqrt(var + eps)``.
        """
        norm = view.final_norm_parameters()
        sigma = norm.scale(final_hidden)
        bias = norm.bias
        if reference_quirks and norm.centred:
            sigma, bias = final_hidden.var(dim=-1, unbiased=False).sqrt() + 1e-5, None
        elif reference_quirks:
            sigma = torch.sqrt(final_hidden.pow(2).mean(dim=-1) + 1e-6)
        place = dict(device=final_hidden.device, dtype=final_hidden.dtype)
        return cls(view, sigma, norm.gain.to(**place), None if bias is None else bias.to(**place), norm.centred)

    def centre(self, x: Tensor, dim: int) -> Tensor:
        """Take the mean over the model dimension ``dim`` off, if the norm does."""
        return x - x.mean(dim=dim, keepdim=True) if self.centred else x

    def rows(self, start: int, stop: int) -> tuple[Tensor, Tensor | float]:
        """``(U diag(g) [v, d_model], offset [v])`` for tokens ``start:stop``, in the compute dtype."""
        weight, bias = self.view.unembedding()
        part = weight[start:stop].to(self.gain.dtype)
        offset = 0.0 if bias is None else bias[start:stop].to(self.gain.dtype)
        if self.norm_bias is not None:
            offset = offset + part @ self.norm_bias
        return part * self.gain, offset

    def softcap_(self, logits: Tensor) -> Tensor:
        """The model's final soft capping, in place."""
        cap = self.view.logit_softcap
        return logits if cap is None else logits.div_(cap).tanh_().mul_(cap)


class RunningSoftmax:
    """Log-probability of one target per entry from logits that arrive in chunks of the vocabulary.

    Keeps maximum, sum and target logit apart: ``(t - max) - log(sum)`` loses nothing when the target is the maximum.
    """

    def __init__(self, shape, like: Tensor):
        self.top = torch.full(shape, float("-inf"), dtype=like.dtype, device=like.device)
        self.total = torch.zeros(shape, dtype=like.dtype, device=like.device)
        self.target = torch.zeros(shape, dtype=like.dtype, device=like.device)

    def add(self, index, logits: Tensor, targets: Tensor, start: int) -> None:
        """Take in ``logits [b, v, n]`` (overwritten) of tokens ``start:start+v`` for the entries at ``index`` ([b, n]).

        ``targets [b]`` are token ids; those outside this chunk are left to theirs.
        """
        local = targets - start
        inside = (local >= 0) & (local < logits.shape[1])
        # gather and where instead of indexing by a mask: no wait for the device once per chunk
        local = local.clamp(0, logits.shape[1] - 1)[:, None, None].expand(-1, 1, logits.shape[2])
        self.target[index] = torch.where(inside[:, None], logits.gather(1, local)[:, 0], self.target[index])
        top = torch.maximum(self.top[index], logits.amax(dim=1))
        total = self.total[index] * torch.exp(self.top[index] - top)
        self.total[index] = total + logits.sub_(top[:, None]).exp_().sum(dim=1)
        self.top[index] = top

    def log_prob(self) -> Tensor:
        """Log-probability of the targets; valid once every token of the vocabulary has been added."""
        return (self.target - self.top) - self.total.log()


@dataclass(frozen=True)
class LogProbabilities:
    """Log-probability of the targets, unperturbed ``base [B, 1]`` and per amplified neuron ``amplified [B, d_ff]``."""

    base: Tensor
    amplified: Tensor


@torch.no_grad()
def amplified_log_probs(
    view: ModelView,
    readings: Readings,
    targets: Tensor,
    amplify: float,
    reference_quirks: bool = False,
    neuron_chunk: Optional[int] = None,
    vocab_chunk: Optional[int] = None,
) -> dict[int, LogProbabilities]:
    """``log p(w_b | x_b)`` and ``log p(w_b | x_b + A q_bi v_i)`` for every layer of ``readings``.

    Args:
        view: the model.
        readings: hidden states of B prompts.
        targets: ``[B]`` token ids w, on the readings' device.
        amplify: A.
        reference_quirks: see ``FrozenHead.of``.
        neuron_chunk, vocab_chunk: neurons and tokens handled at once; by device when unset (``CPU_CHUNKS``, ``GPU_CHUNKS``).

    Returns:
        ``{layer: LogProbabilities}``, compute dtype, on the readings' device.
    """
    head = FrozenHead.of(view, readings.final_hidden, reference_quirks)
    layers = list(readings.activations)
    chunks = CPU_CHUNKS if readings.final_hidden.device.type == "cpu" else GPU_CHUNKS
    neuron_chunk = min(neuron_chunk or chunks.neurons, view.d_ff)
    vocab_chunk = min(vocab_chunk or chunks.tokens, view.vocab_size)
    prompts = len(targets)
    scale, directions, residual = {}, {}, {}
    for layer in layers:
        directions[layer], factor = written_columns(view, layer, readings.ffn_out[layer])
        scale[layer] = amplify * readings.activations[layer] * (factor / head.sigma)[:, None]
        residual[layer] = head.centre(readings.resid_mid[layer], dim=-1) / head.sigma[:, None]
    like = readings.final_hidden
    base = {layer: RunningSoftmax((prompts, 1), like) for layer in layers}
    moved = {layer: RunningSoftmax((prompts, view.d_ff), like) for layer in layers}
    group = max(1, chunks.elements // (neuron_chunk * vocab_chunk))
    for start in range(0, view.vocab_size, vocab_chunk):
        rows, offset = head.rows(start, min(start + vocab_chunk, view.vocab_size))
        for layer in layers:
            plain = residual[layer] @ rows.T + offset
            base[layer].add(slice(None), head.softcap_(plain.clone())[..., None], targets, start)
            for first in range(0, view.d_ff, neuron_chunk):
                neurons = slice(first, first + neuron_chunk)
                effect = rows @ head.centre(directions[layer](neurons), dim=0)
                for row in range(0, prompts, group):
                    some = slice(row, row + group)
                    logits = torch.addcmul(plain[some, :, None], scale[layer][some, None, neurons], effect[None])
                    moved[layer].add((some, neurons), head.softcap_(logits), targets[some], start)
    found = {}
    for layer in layers:
        before, after = base[layer].log_prob(), moved[layer].log_prob()
        # a silent neuron changes nothing: exactly nothing, not the rounding of two sums taken in different orders
        found[layer] = LogProbabilities(before, torch.where(scale[layer] == 0, before, after))
    return found
