"""PNKE's critical neurons (section 3, B, Algorithms 2 to 4): pure functions of one layer's activations and
attributions."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ...errors import MaskError
from ...masks.contract import (
    NeuronMask,
    check_choice,
    check_number,
    check_share,
    checked_scores,
    mask_function,
    min_max,
)

log = logging.getLogger(__name__)

STRATEGIES = ("entropy", "trigger", "background", "activation")
THRESHOLDS = ("percentile", "range")


@dataclass(frozen=True)
class CausalScores:
    """What one request tells about the neurons of one layer.

    Attributes:
        specific: ``[d_ff]``, Act(n_i, P_spec).
        semantic: ``[m, d_ff]``, Act(n_i, p) for every p of P_sem; no rows where there is no such prompt, None
            where nobody asks.
        attribution: ``[d_ff]``, Attr(n_i, P_spec); None where nobody asks.
    """

    specific: Tensor
    semantic: Tensor | None = None
    attribution: Tensor | None = None


def threshold(values: Tensor, level: float, thresholds: str = "percentile") -> Tensor:
    """The value at ``level`` of ``[d_ff]`` values: their percentile, linearly interpolated (B.2, B.3.3), or
    (``range``) the point at ``level`` percent of the way from the least to the greatest."""
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

    The standard deviation is that of the m prompts themselves (divided by m; its percentile does not depend
    on that). With one prompt it is 0 for all neurons, with none there is no mean: either way there is no
    background neuron.
    """
    if not len(semantic):
        return torch.zeros(semantic.shape[1], dtype=torch.bool, device=semantic.device)
    mean, std = semantic.mean(0), semantic.std(0, correction=0)
    return (mean > threshold(mean, activation_percentile, thresholds)) & (
        std < threshold(std, std_percentile, thresholds)
    )


def trigger_neurons(
    specific: Tensor,
    attribution: Tensor,
    activation_percentile: float = 90.0,
    attribution_percentile: float = 90.0,
    thresholds: str = "percentile",
) -> Tensor:
    """N_trig (Eq. 3, Algorithm 3), bool ``[d_ff]``: activation on P_spec and attribution both above their
    thresholds."""
    strong = specific > threshold(specific, activation_percentile, thresholds)
    return strong & (attribution > threshold(attribution, attribution_percentile, thresholds))


def importance(specific: Tensor, attribution: Tensor | None, alpha: float = 0.5) -> Tensor:
    """``s_i = alpha norm(Act) + (1 - alpha) norm(Attr)`` (Eq. 5) of the neurons given, min-max normalised
    among them (B.4.1).

    Values that are all equal are 1 each; without attributions s is the activation's share alone.
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


def _checked(scores: Sequence[CausalScores]) -> list[CausalScores]:
    if (
        not isinstance(scores, Sequence)
        or not scores
        or not all(isinstance(one, CausalScores) for one in scores)
    ):
        raise MaskError(f"scores: expected CausalScores, one or more, got {type(scores).__name__}")
    return [
        CausalScores(*(_finite(getattr(one, name)) for name in ("specific", "semantic", "attribution")))
        for one in scores
    ]


def _finite(values: Tensor | None) -> Tensor | None:
    if values is None or not len(values):
        return values
    return checked_scores(values) if values.dim() == 2 else checked_scores(values[None])[0]


@functools.partial(mask_function, check=_checked)
def pnke_mask(
    scores: Sequence[CausalScores],
    *,
    layer: int | None = None,
    strategy: Literal["entropy", "trigger", "background", "activation"] = "entropy",
    thresholds: Literal["percentile", "range"] = "percentile",
    background_activation: float = 75.0,
    background_std: float = 25.0,
    trigger_activation: float = 90.0,
    trigger_attribution: float = 90.0,
    alpha: float = 0.5,
    q_base: float = 85.0,
    gamma: float = 10.0,
    activation_share: float = 0.1,
    min_neurons: int = 1,
) -> NeuronMask:
    """The critical neurons of one layer: of every request by itself, and then the union.

    Args:
        scores: one ``CausalScores`` per request of the batch.
        layer: for the log.
        strategy: Fig. 3. ``entropy``: Algorithm 4; ``trigger``, ``background``: N_trig or N_bg as they are;
            ``activation``: the ``activation_share`` of the neurons with the highest activation on P_spec.
        thresholds: what the four levels that follow, from 0 to 100, are: percentiles of the layer (B.2,
            B.3.3), or percent of the way from the least to the greatest value. The paper's Fig. 5 counts from
            above and gives shares: its 0.2 to 0.3 for trigger neurons is a level of 80 to 70.
        background_activation, background_std: of the mean and of the standard deviation over P_sem.
        trigger_activation, trigger_attribution: of activation and attribution on P_spec.
        alpha: weight of the activation in s, in [0, 1].
        q_base, gamma: of the entropy-determined percentile.
        activation_share: in (0, 1].
        min_neurons: at least so many neurons per request. Where a selection has fewer it is filled up, first
            from its causal neurons (N_trig or N_bg of those strategies), then from the others, each in the
            order of s (of equal ones the lower number first), and the record says so: no causal neuron, all
            scores equal, a single causal neuron are such cases.

    Raises:
        MaskError: an option out of range, scores that are not finite or that the strategy needs and are not
            there.
    """
    check_choice("strategy", strategy, STRATEGIES)
    check_choice("thresholds", thresholds, THRESHOLDS)
    levels = {
        "background_activation": background_activation,
        "background_std": background_std,
        "trigger_activation": trigger_activation,
        "trigger_attribution": trigger_attribution,
        "q_base": q_base,
    }
    for name, value in levels.items():
        if not 0 <= check_number(name, value) <= 100:
            raise MaskError(f"{name}: must lie between 0 and 100, got {value!r}")
    if not 0 <= check_number("alpha", alpha) <= 1:
        raise MaskError(f"alpha: must lie between 0 and 1, got {alpha!r}")
    if check_number("gamma", gamma) < 0:
        raise MaskError(f"gamma: must not be negative, got {gamma!r}")
    check_share("activation_share", activation_share)
    d_ff = len(scores[0].specific)
    if isinstance(min_neurons, bool) or not isinstance(min_neurons, int) or not 1 <= min_neurons <= d_ff:
        raise MaskError(
            f"min_neurons: expected an integer between 1 and the {d_ff} neurons of the layer, got {min_neurons!r}"
        )
    mask, told = torch.zeros(d_ff, dtype=torch.bool, device=scores[0].specific.device), []
    for one in scores:
        sets, about = _causal(one, strategy, thresholds, levels)
        critical = (
            sets
            if strategy in ("trigger", "background")
            else _best(one.specific, max(1, round(activation_share * d_ff)))
        )
        if strategy == "entropy":
            critical, more = _entropy_selection(one, sets, alpha, q_base, gamma)
            about |= more
        if int(critical.sum()) < min_neurons:
            about["filled_up"] = min_neurons - int(critical.sum())
            (log.info if critical.any() else log.warning)(
                "layer %s: %d critical neurons, %d are filled up",
                layer,
                int(critical.sum()),
                about["filled_up"],
            )
            critical = _best(_rank(one, sets, alpha), min_neurons)
        mask |= critical
        told.append({**about, "critical": int(critical.sum())})
    return NeuronMask(mask, info={"strategy": strategy, "requests": told})


def _causal(one: CausalScores, strategy: str, thresholds: str, levels: dict) -> tuple[Tensor, dict]:
    """N_bg, N_trig or their union N_causal (Eq. 4), as the strategy asks, and the numbers of each."""
    needs = {
        "background": ("semantic",),
        "trigger": ("attribution",),
        "entropy": ("semantic", "attribution"),
        "activation": (),
    }
    for name in needs[strategy]:
        if getattr(one, name) is None:
            raise MaskError(f"scores: strategy {strategy!r} needs {name}")
    none = torch.zeros_like(one.specific, dtype=torch.bool)
    background = trigger = none
    about = {}
    if "semantic" in needs[strategy]:
        background = background_neurons(
            one.semantic, levels["background_activation"], levels["background_std"], thresholds
        )
        about["background"] = int(background.sum())
    if "attribution" in needs[strategy]:
        cuts = levels["trigger_activation"], levels["trigger_attribution"]
        trigger = trigger_neurons(one.specific, one.attribution, *cuts, thresholds)
        about["trigger"] = int(trigger.sum())
    if strategy == "entropy":
        about |= {"overlap": int((background & trigger).sum()), "causal": int((background | trigger).sum())}
    return background | trigger, about


def _entropy_selection(
    one: CausalScores, causal: Tensor, alpha: float, q_base: float, gamma: float
) -> tuple[Tensor, dict]:
    """N_critical (Eq. 5 to 7, Algorithm 4): the causal neurons with ``s_i > tau_H``."""
    chosen = torch.zeros_like(causal)
    if not causal.any():
        return chosen, {}
    scores = importance(one.specific[causal].double(), one.attribution[causal].double(), alpha)
    entropy = score_entropy(scores)
    q = entropy_percentile(entropy, len(scores), q_base, gamma)
    tau = threshold(scores, q)
    chosen[causal] = scores > tau
    return chosen, {"entropy": entropy, "percentile": q, "threshold": float(tau)}


def _rank(one: CausalScores, members: Tensor, alpha: float) -> Tensor:
    """Members by s among themselves, above all others by s in the layer."""
    rank = importance(one.specific, one.attribution, alpha)
    if members.any():
        inside = None if one.attribution is None else one.attribution[members]
        rank[members] = 2 + importance(one.specific[members], inside, alpha)
    return rank


def _best(values: Tensor, count: int) -> Tensor:
    """bool: the ``count`` highest values, of equal ones those with the lower number, on every device."""
    best = values.argsort(descending=True, stable=True)[:count]
    return torch.zeros_like(values, dtype=torch.bool).index_fill(0, best, True)
