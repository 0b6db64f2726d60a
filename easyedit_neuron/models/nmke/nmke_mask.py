"""The entropy-guided mask of NMKE (section 3.2): knowledge-general OR knowledge-specific neurons.

Defaults are those of the authors' released code; where the paper differs, it is an option.
"""

import logging
import math

import torch
from torch import Tensor

from ...errors import MaskError
from ...masks import NeuronMask, ScoringContext, checked_scores
from ...masks.contract import min_max
from ...masks.scores import lps, mpc, psa
from .nmke_hparams import NMKEOptions

LOG = logging.getLogger(__name__)
STD_EPS = 1e-6
LOG_EPS = 1e-8


def nmke_masks(context: ScoringContext, hparams) -> dict[int, NeuronMask]:
    """``{layer: NeuronMask}`` of a batch: score every neuron (Eq. 3), then select (Eq. 4 to 8).

    Args:
        context: the batch on the unedited weights.
        hparams: ``NMKEHyperParams`` without ``mask_options``.
    """
    score = {"lps": lps, "psa": psa, "mpc": mpc}[hparams.attribution]
    scores = score(context, hparams)
    return {layer: nmke_mask(context.own(scores[layer]), hparams, layer) for layer in context.layers}


def nmke_mask(scores: Tensor, options: NMKEOptions, layer: int | None = None) -> NeuronMask:
    """Mask from the scores ``S [B, d_ff]`` of B prompts.

    1. General score ``Qg_i``: number of prompts with ``S_bi > 0`` (Eq. 4), after z-scoring S over the neurons
       of each prompt unless ``score_form: raw``. Specific score ``Qs_i = max_b S_bi`` (Eq. 5).
    2. Entropies ``H_g`` (Eq. 6) and ``H_s`` (Eq. 7), see ``general_entropy`` and ``specific_entropy``.
    3. Ratios ``rho = lo + (hi - lo) H^gamma`` (``entropy``, released), ``scaler * H + bias`` (``linear``,
       paper), or fixed.
    4. A neuron is general if ``Qg_i >= quantile(Qg, 1 - rho_g)``, specific likewise; the mask is general OR
       specific (Eq. 8).

    A soft mask (Table 4) scales every neuron's update by its score, min-max normalised over the layer, with
    no selection. The paper does not say which score; here it is the larger of the normalised Qg and Qs, in
    analogy to OR. ``neurons`` chooses the score of one kind, the smaller (overlap) or the difference
    (non_overlap).

    Args:
        scores: ``[B, d_ff]``, finite, ``d_ff >= 2``; one prompt is enough. Half precision is computed in
            float32.
        options: ``NMKEOptions`` (an ``NMKEHyperParams`` is one).
        layer: for the log.

    Returns:
        ``NeuronMask`` on the scores' device; ``general`` and ``specific`` are the binary sets, also for a
        soft mask.

    Raises:
        MaskError: scores that are not finite or of another shape.
    """
    scores = checked_scores(scores)
    if scores.shape[1] < 2:
        raise MaskError(f"scores: the entropies need at least two neurons, got {list(scores.shape)}")
    q_general, q_specific = general_score(scores, options.score_form), scores.max(dim=0).values
    h_general, h_specific = general_entropy(scores, options.tau), specific_entropy(scores)
    rho_general, rho_specific = _ratio(h_general, "general", options), _ratio(h_specific, "specific", options)
    general, cut_general = _select(q_general, rho_general, options.ties)
    specific, cut_specific = _select(q_specific, rho_specific, options.ties)
    if options.mask_values == "binary":
        mask = _combine_sets(general, specific, options.neurons)
    else:
        mask = _combine_weights(min_max(q_general), min_max(q_specific), options.neurons)
    if not mask.any():
        LOG.warning(
            "layer %s: the mask holds no neuron (neurons=%s, ties=%s); the edit cannot change it",
            layer,
            options.neurons,
            options.ties,
        )
    return NeuronMask(
        mask,
        general,
        specific,
        rho_general,
        rho_specific,
        float(h_general),
        float(h_specific),
        cut_general,
        cut_specific,
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

    0 if no score is positive (their sum is below 1e-8), so that the ratio is its lower bound as in the
    released code.
    """
    positive = scores.max(dim=0).values.clamp(min=0)
    total = positive.sum()
    if total < LOG_EPS:
        return torch.zeros_like(total)
    return (_entropy(positive / (total + LOG_EPS)) / math.log(scores.shape[1])).clamp(0, 1)


def _entropy(weights: Tensor) -> Tensor:
    return -(weights * (weights + LOG_EPS).log()).sum(dim=-1)


def _ratio(entropy: Tensor, kind: str, options: NMKEOptions) -> float:
    """Share of the neurons that are selected as ``general`` or ``specific``."""
    if options.ratio == "fixed":
        return getattr(options, f"{kind}_ratio")
    if options.ratio == "linear":
        return float(getattr(options, f"{kind}_scaler") * entropy + getattr(options, f"{kind}_bias"))
    low, high = getattr(options, f"{kind}_bounds")
    return float(low + (high - low) * entropy.pow(getattr(options, f"gamma_{kind}")))


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
