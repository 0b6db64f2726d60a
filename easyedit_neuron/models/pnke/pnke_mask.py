"""PNKE's critical neurons (section 3, B, Algorithms 2 to 4): pure functions of one layer's activations and
attributions."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import MaskError
from ...masks import NeuronMask, checked_scores
from ...masks.contract import min_max
from .pnke_options import PNKEOptions

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class CausalScores:
    """Activations and attributions of the neurons of one layer, for one request.

    Attributes:
        specific: ``[d_ff]``, Act(n_i, P_spec).
        semantic: ``[m, d_ff]``, Act(n_i, p) for every p of P_sem, perhaps no row; None if the strategy does
            not use it.
        attribution: ``[d_ff]``, Attr(n_i, P_spec); None if the strategy does not use it.
    """

    specific: Tensor
    semantic: Tensor | None = None
    attribution: Tensor | None = None


def pnke_mask(scores: Sequence[CausalScores], options: PNKEOptions, layer: int | None = None) -> NeuronMask:
    """The critical neurons of one layer: selected for each request, then the union.

    ``strategy: entropy`` is Algorithm 4. ``trigger`` takes N_trig and ``background`` N_bg; ``activation``
    takes the ``activation_share`` of neurons with the highest activation on P_spec. A selection with fewer
    than ``min_neurons`` is filled up, which the record says: first with causal neurons, then with others, in
    descending order of s, and among equals the lower number first.

    Args:
        scores: one ``CausalScores`` per request of the batch.
        options: ``PNKEOptions`` (a ``PNKEHyperParams`` is one).
        layer: for the log.

    Raises:
        MaskError: scores that are not finite, or that the strategy needs and that are missing; more
            ``min_neurons`` than the layer has.
    """
    if not isinstance(scores, Sequence) or not scores or not isinstance(scores[0], CausalScores):
        raise MaskError(f"scores: expected CausalScores, one or more, got {type(scores).__name__}")
    d_ff = len(scores[0].specific)
    if options.min_neurons > d_ff:
        raise MaskError(f"min_neurons: the layer has {d_ff} neurons, got {options.min_neurons}")
    mask, counts = torch.zeros(d_ff, dtype=torch.bool, device=scores[0].specific.device), []
    for request_scores in scores:
        critical, request_counts = critical_neurons(_finite(request_scores), options, layer)
        mask |= critical
        counts.append({**request_counts, "critical": int(critical.sum())})
    return NeuronMask(mask, info={"strategy": options.strategy, "requests": counts})


def critical_neurons(
    scores: CausalScores, options: PNKEOptions, layer: int | None = None
) -> tuple[Tensor, dict]:
    """N_critical of one request, bool ``[d_ff]``, and the counts of its intermediate sets."""
    causal, counts = select_causal(scores, options)
    if options.strategy == "entropy":
        critical, entropy_counts = entropy_selection(scores, causal, options)
        counts |= entropy_counts
    elif options.strategy == "activation":
        count = max(1, round(options.activation_share * len(scores.specific)))
        critical = _highest(scores.specific, count)
    else:
        critical = causal
    missing = options.min_neurons - int(critical.sum())
    if missing > 0:
        counts["filled_up"] = missing
        (LOG.info if critical.any() else LOG.warning)(
            "layer %s: %d critical neurons, %d are filled up", layer, int(critical.sum()), missing
        )
        critical = _highest(_rank(scores, causal, options.alpha), options.min_neurons)
    return critical, counts


def select_causal(scores: CausalScores, options: PNKEOptions) -> tuple[Tensor, dict]:
    """N_bg, N_trig or their union N_causal (Eq. 4), depending on the strategy, and their counts."""
    background = trigger = torch.zeros_like(scores.specific, dtype=torch.bool)
    counts = {}
    if options.uses_prompts:
        if scores.semantic is None:
            raise MaskError(f"scores: strategy {options.strategy!r} needs the field 'semantic'")
        background = background_neurons(
            scores.semantic, options.background_activation, options.background_std, options.thresholds
        )
        counts["background"] = int(background.sum())
    if options.uses_attribution:
        if scores.attribution is None:
            raise MaskError(f"scores: strategy {options.strategy!r} needs the field 'attribution'")
        trigger = trigger_neurons(
            scores.specific,
            scores.attribution,
            options.trigger_activation,
            options.trigger_attribution,
            options.thresholds,
        )
        counts["trigger"] = int(trigger.sum())
    if options.strategy == "entropy":
        counts |= {"overlap": int((background & trigger).sum()), "causal": int((background | trigger).sum())}
    return background | trigger, counts


def threshold(values: Tensor, level: float, thresholds: str = "percentile") -> Tensor:
    """The value at ``level`` of ``[d_ff]`` values.

    Their percentile, linearly interpolated (B.2, B.3.3), or (``range``) the point at ``level`` percent of the
    way from the least to the greatest.
    """
    if thresholds == "percentile":
        return torch.quantile(values, level / 100)
    return torch.lerp(values.min(), values.max(), level / 100)


def background_neurons(
    semantic: Tensor,
    activation_percentile: float = 75.0,
    std_percentile: float = 25.0,
    thresholds: str = "percentile",
) -> Tensor:
    """N_bg (Eq. 2, Algorithm 2), bool ``[d_ff]``: mean activation over P_sem above, standard deviation below
    its threshold.

    The standard deviation is over the m prompts (divided by m, which its percentile does not depend on). With
    fewer than two prompts there is no background neuron.
    """
    if not len(semantic):
        return torch.zeros(semantic.shape[1], dtype=torch.bool, device=semantic.device)
    mean, std = semantic.mean(0), semantic.std(0, correction=0)
    active = mean > threshold(mean, activation_percentile, thresholds)
    return active & (std < threshold(std, std_percentile, thresholds))


def trigger_neurons(
    specific: Tensor,
    attribution: Tensor,
    activation_percentile: float = 90.0,
    attribution_percentile: float = 90.0,
    thresholds: str = "percentile",
) -> Tensor:
    """N_trig (Eq. 3, Algorithm 3), bool ``[d_ff]``: activation on P_spec and attribution both above their
    thresholds."""
    active = specific > threshold(specific, activation_percentile, thresholds)
    return active & (attribution > threshold(attribution, attribution_percentile, thresholds))


def entropy_selection(scores: CausalScores, causal: Tensor, options: PNKEOptions) -> tuple[Tensor, dict]:
    """N_critical (Eq. 5 to 7, Algorithm 4): the causal neurons with ``s_i > tau_H``."""
    critical = torch.zeros_like(causal)
    if not causal.any():
        return critical, {}
    s = importance(scores.specific[causal].double(), scores.attribution[causal].double(), options.alpha)
    entropy = score_entropy(s)
    percentile = entropy_percentile(entropy, len(s), options.q_base, options.gamma)
    tau = threshold(s, percentile)
    critical[causal] = s > tau
    return critical, {"entropy": entropy, "percentile": percentile, "threshold": float(tau)}


def importance(specific: Tensor, attribution: Tensor | None, alpha: float = 0.5) -> Tensor:
    """``s_i = alpha norm(Act) + (1 - alpha) norm(Attr)`` (Eq. 5), min-max normalised over these neurons
    (B.4.1).

    Values that are all equal become 1; without attributions ``s = norm(Act)``.
    """
    if attribution is None:
        return min_max(specific)
    return alpha * min_max(specific) + (1 - alpha) * min_max(attribution)


def score_entropy(scores: Tensor) -> float:
    """``H(P_S) = -sum p_i log p_i``, ``p_i = s_i / sum_j s_j``, in nats; 0 log 0 is 0."""
    return float(torch.special.entr(scores / scores.sum()).sum())


def entropy_percentile(entropy: float, count: int, q_base: float = 85.0, gamma: float = 10.0) -> float:
    """``q(H) = q_base + gamma (log |N_causal| - H)`` (Eq. 6, B.4.2), cut to [0, 100]."""
    return min(100.0, max(0.0, q_base + gamma * (math.log(count) - entropy)))


def _finite(scores: CausalScores) -> CausalScores:
    """The scores, at least float32; ``MaskError`` unless they are finite."""

    def check(values: Tensor | None) -> Tensor | None:
        if values is None or not len(values):
            return values
        return checked_scores(values) if values.dim() == 2 else checked_scores(values[None])[0]

    return CausalScores(check(scores.specific), check(scores.semantic), check(scores.attribution))


def _rank(scores: CausalScores, members: Tensor, alpha: float) -> Tensor:
    """Rank by s: first the members, by s among themselves, then all others, by s in the layer."""
    rank = importance(scores.specific, scores.attribution, alpha)
    if members.any():
        attribution = None if scores.attribution is None else scores.attribution[members]
        rank[members] = 2 + importance(scores.specific[members], attribution, alpha)
    return rank


def _highest(values: Tensor, count: int) -> Tensor:
    """Mask of the ``count`` highest values; among equals the lower number wins, on every device."""
    highest = values.argsort(descending=True, stable=True)[:count]
    return torch.zeros_like(values, dtype=torch.bool).index_fill(0, highest, True)
