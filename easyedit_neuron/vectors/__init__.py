"""Methods that train vectors: what FiNE and KNE share."""

from .apply import Trained, apply_vectors
from .divergence import divergence

__all__ = ["Trained", "apply_vectors", "divergence"]
