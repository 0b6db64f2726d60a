"""Neuron masks, which are pure functions from scores to the neurons that an edit may change, and scores."""

from .choose import ChosenMask, chosen_mask, make_masks
from .contract import NeuronMask, checked_scores
from .registry import MaskSpec, get_mask, mask_names, mask_spec, register_mask, register_scores
from .scoring_context import ScoringContext

__all__ = [
    "ChosenMask",
    "MaskSpec",
    "NeuronMask",
    "ScoringContext",
    "checked_scores",
    "chosen_mask",
    "get_mask",
    "make_masks",
    "mask_names",
    "mask_spec",
    "register_mask",
    "register_scores",
]
