"""Optimisation shared by z*, FiNE, KNE and PNKE: batched Adam with early leaving, and the KL terms."""

from .objective import Objective, divergence, minimise

__all__ = ["Objective", "divergence", "minimise"]
