"""The entropy-guided mask of NMKE (section 3.2): knowledge-general OR knowledge-specific neurons.

Defaults are those of the authors' released code; where the paper differs, it is an option.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from ...errors import MaskError
from ...masks.contract import NeuronMask, check_choice, check_number, check_share, mask_function, min_max

log = logging.getLogger(__name__)

SCORE_FORMS = ("zscore", "raw")
RATIOS = ("entropy", "linear", "fixed")
TIES = ("include", "exclude")
NEURONS = ("both", "general", "specific", "overlap", "non_overlap")
MASK_VALUES = ("binary", "soft")

STD_EPS = 1e-6
LOG_EPS = 1e-8


@mask_function
def nmke_mask(
    scores: Tensor,
    *,
    layer: int | None = None,
    score_form: Literal["zscore", "raw"] = "zscore",
    ratio: Literal["entropy", "linear", "fixed"] = "entropy",
    general_bounds: Sequence[float] = (0.3, 0.4),
    specific_bounds: Sequence[float] = (0.3, 0.4),
    gamma_general: float = 3.0,
    gamma_specific: float = 2.0,
    tau: float = 30.0,
    general_scaler: float = 0.4,
    general_bias: float = 0.0,
    specific_scaler: float = 0.4,
    specific_bias: float = 0.0,
    general_ratio: float | None = None,
    specific_ratio: float | None = None,
    ties: Literal["include", "exclude"] = "include",
    neurons: Literal["both", "general", "specific", "overlap", "non_overlap"] = "both",
    mask_values: Literal["binary", "soft"] = "binary",
) -> NeuronMask:
    """Mask from the scores ``S [B, d_ff]`` of B prompts.

    1. general score ``Qg_i`` = number of prompts with ``S_bi > 0`` (Eq. 4), S z-scored over the neurons of
    each prompt
       first unless ``score_form="raw"``; specific score ``Qs_i = max_b S_bi`` (Eq. 5).
    2. entropies ``H_g`` (Eq. 6) and ``H_s`` (Eq. 7), see ``general_entropy`` and ``specific_entropy``.
    3. ratio ``rho = lo + (hi - lo) H^gamma`` (``entropy``, released), ``scaler * H + bias`` (``linear``,
    paper) or given (``fixed``).
    4. a neuron is general when ``Qg_i >= quantile(Qg, 1 - rho_g)``, specific likewise; mask = general OR
    specific (Eq. 8).

    Args:
        scores: ``[B, d_ff]``, finite, ``d_ff >= 2``; one prompt is enough. Half precision is computed in
            float32.
        layer: not used.
        score_form: ``zscore`` (released) or ``raw`` (paper).
        ratio: how the shares come about.
        general_bounds, specific_bounds: (lo, hi) for ``entropy``, in (0, 1].
        gamma_general, gamma_specific: exponents for ``entropy``, > 0.
        tau: temperature of the softmax in H_g, > 0.
        general_scaler, general_bias, specific_scaler, specific_bias: for ``linear``; ``bias`` and ``scaler +
            bias`` in [0, 1].
        general_ratio, specific_ratio: for ``fixed``, in (0, 1].
        ties: ``include`` (released): neurons on the threshold are selected. Qg is a small integer, so many
            neurons tie and the mask gets denser than the ratio. ``exclude``: only neurons above the
            threshold, which never selects more than the ratio asks for and may select none.
        neurons: ``both`` (general OR specific), one kind alone, ``overlap`` (AND) or ``non_overlap`` (exactly
            one of them); Fig. 6 and Table 3.
        mask_values: ``binary``, or ``soft`` (Table 4): every neuron's update is scaled by its attribution
            score, min-max normalised over the layer's neurons, with no selection at all (the paper blames the
            soft variant's "dense" updates for its loss of locality). The paper does not say which score; here
            the larger of the normalised Qg and Qs, as OR; with ``neurons``: the one kind's score, the smaller
            (overlap), or the difference (non_overlap).

    Returns:
        ``NeuronMask`` on the scores' device; ``general`` and ``specific`` hold the binary sets also when the
        mask is soft.

    Raises:
        MaskError: an option that is unknown or out of range; scores that are not finite.
    """
    for name, value, choices in (
        ("score_form", score_form, SCORE_FORMS),
        ("ratio", ratio, RATIOS),
        ("ties", ties, TIES),
        ("neurons", neurons, NEURONS),
        ("mask_values", mask_values, MASK_VALUES),
    ):
        check_choice(name, value, choices)
    if scores.shape[1] < 2:
        raise MaskError(f"scores: the entropies need at least two neurons, got {list(scores.shape)}")
    tau = check_number("tau", tau, above=0.0)
    if ratio == "entropy":
        to_general = _power("general_bounds", general_bounds, "gamma_general", gamma_general)
        to_specific = _power("specific_bounds", specific_bounds, "gamma_specific", gamma_specific)
    elif ratio == "linear":
        to_general = _linear("general", general_scaler, general_bias)
        to_specific = _linear("specific", specific_scaler, specific_bias)
    else:
        to_general, to_specific = (
            _fixed("general_ratio", general_ratio),
            _fixed("specific_ratio", specific_ratio),
        )

    h_general, h_specific = general_entropy(scores, tau), specific_entropy(scores)
    q_general, q_specific = general_score(scores, score_form), scores.max(dim=0).values
    rho_general, rho_specific = to_general(h_general), to_specific(h_specific)
    general, cut_general = _select(q_general, rho_general, ties)
    specific, cut_specific = _select(q_specific, rho_specific, ties)
    if mask_values == "binary":
        mask = _combine_sets(general, specific, neurons)
    else:
        mask = _combine_weights(min_max(q_general), min_max(q_specific), neurons)
    if not mask.any():
        log.warning(
            "layer %s: the mask holds no neuron (neurons=%s, ties=%s); the edit cannot change it",
            layer,
            neurons,
            ties,
        )
    return NeuronMask(
        mask=mask,
        general=general,
        specific=specific,
        general_ratio=rho_general,
        specific_ratio=rho_specific,
        general_entropy=float(h_general),
        specific_entropy=float(h_specific),
        general_threshold=cut_general,
        specific_threshold=cut_specific,
    )


def general_score(scores: Tensor, score_form: str = "zscore") -> Tensor:
    """``Qg [d_ff]``: number of the B prompts on which a neuron's (z-scored or raw) score is positive."""
    if score_form == "zscore":
        spread = scores.std(dim=1, keepdim=True) + STD_EPS
        scores = (scores - scores.mean(dim=1, keepdim=True)) / spread
    return (scores > 0).to(scores.dtype).sum(dim=0)


def general_entropy(scores: Tensor, tau: float = 30.0) -> Tensor:
    """``H_g = mean_b H(softmax(tau S_b)) / log d_ff`` (Eq. 6), a scalar in [0, 1]."""
    weights = torch.softmax((scores - scores.max(dim=1, keepdim=True).values) * tau, dim=1)
    return (_entropy(weights).mean() / math.log(scores.shape[1])).clamp(0, 1)


def specific_entropy(scores: Tensor) -> Tensor:
    """``H_s = H(p) / log d_ff`` (Eq. 7), p = positive part of ``max_b S_bi`` normalised; a scalar in [0, 1].

    0 when no score is positive (their sum below 1e-8), which puts the ratio at its lower bound as in the
    released code.
    """
    positive = scores.max(dim=0).values.clamp(min=0)
    total = positive.sum()
    if total < LOG_EPS:
        return torch.zeros_like(total)
    return (_entropy(positive / (total + LOG_EPS)) / math.log(scores.shape[1])).clamp(0, 1)


def _entropy(weights: Tensor) -> Tensor:
    return -(weights * (weights + LOG_EPS).log()).sum(dim=-1)


def _power(bounds_name: str, bounds: Sequence[float], gamma_name: str, gamma: float):
    try:
        low, high = bounds
    except (TypeError, ValueError):
        raise MaskError(f"{bounds_name}: expected (low, high), got {bounds!r}") from None
    low, high = check_share(f"{bounds_name}[0]", low), check_share(f"{bounds_name}[1]", high)
    if low > high:
        raise MaskError(f"{bounds_name}: the lower bound {low} is above the upper bound {high}")
    gamma = check_number(gamma_name, gamma, above=0.0)
    return lambda entropy: float(low + (high - low) * entropy.pow(gamma))


def _linear(kind: str, scaler: float, bias: float):
    scaler, bias = check_number(f"{kind}_scaler", scaler), check_number(f"{kind}_bias", bias)
    if not (0 <= bias <= 1 and 0 <= scaler + bias <= 1):
        raise MaskError(
            f"{kind}_scaler, {kind}_bias: the ratio runs from bias to scaler + bias, both must lie in [0, 1]; "
            f"got scaler {scaler} and bias {bias}"
        )
    return lambda entropy: float(scaler * entropy + bias)


def _fixed(name: str, value: float | None):
    if value is None:
        raise MaskError(f"{name}: ratio='fixed' needs a share in (0, 1]")
    share = check_share(name, value)
    return lambda _entropy: share


def _select(score: Tensor, ratio: float, ties: str) -> tuple[Tensor, float]:
    cut = torch.quantile(score, min(1.0, max(0.0, 1.0 - ratio)))
    return (score >= cut if ties == "include" else score > cut), float(cut)


def _combine_sets(general: Tensor, specific: Tensor, neurons: str) -> Tensor:
    return {
        "both": general | specific,
        "general": general,
        "specific": specific,
        "overlap": general & specific,
        "non_overlap": general ^ specific,
    }[neurons].clone()


def _combine_weights(general: Tensor, specific: Tensor, neurons: str) -> Tensor:
    return {
        "both": torch.maximum(general, specific),
        "general": general,
        "specific": specific,
        "overlap": torch.minimum(general, specific),
        "non_overlap": (general - specific).abs(),
    }[neurons].float()
