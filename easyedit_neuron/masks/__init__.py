"""Neuron masks: pure functions from scores to the neurons that an edit may change."""

from .contract import NeuronMask
from .nmke import nmke_mask
from .registry import get_mask, mask_names, register_mask
from .simple import fixed_mask, no_mask, random_mask

register_mask("nmke", nmke_mask)
register_mask("none", no_mask)
register_mask("random", random_mask)
register_mask("fixed", fixed_mask)

__all__ = [
    "NeuronMask", "fixed_mask", "get_mask", "mask_names", "nmke_mask", "no_mask", "random_mask", "register_mask",
]
