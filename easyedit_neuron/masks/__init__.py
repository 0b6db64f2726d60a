"""Neuron masks: pure functions from scores to the neurons that an edit may change, and the scores that they
are given."""

from ..models.nmke.nmke_mask import nmke_mask
from ..models.pnke.pnke_mask import CausalScores, pnke_mask
from .choice import MaskChoice, mask_factory, neuron_masks
from .contract import NeuronMask, mask_function
from .registry import MaskSpec, get_mask, mask_names, mask_spec, register_mask
from .simple import fixed_mask, no_mask, random_mask, read_indices
from .top import top_k_mask, top_share_mask

register_mask("nmke", nmke_mask, scores="lps")
register_mask("pnke", pnke_mask, scores="pnke")
register_mask("contribution", top_k_mask, scores="contribution")
register_mask("ig", top_share_mask, scores="ig")
register_mask("activation", top_share_mask, scores="activation")
register_mask("none", no_mask, scores="none")
register_mask("random", random_mask, scores="none")
register_mask("fixed", fixed_mask, scores="none")

__all__ = [
    "CausalScores",
    "MaskChoice",
    "MaskSpec",
    "NeuronMask",
    "fixed_mask",
    "get_mask",
    "mask_factory",
    "mask_function",
    "mask_names",
    "mask_spec",
    "neuron_masks",
    "nmke_mask",
    "no_mask",
    "pnke_mask",
    "random_mask",
    "read_indices",
    "register_mask",
    "top_k_mask",
    "top_share_mask",
]
