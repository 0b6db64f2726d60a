"""ROME and R-ROME (baselines of the built-in host)."""
