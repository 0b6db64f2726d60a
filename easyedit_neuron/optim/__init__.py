"""Optimisation shared by z*, FiNE, KNE and PNKE: batched Adam with early leaving, and the KL terms."""

from .batched_adam import Objective, minimise
from .divergence import divergence

__all__ = ["Objective", "divergence", "minimise"]
