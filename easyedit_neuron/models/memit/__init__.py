"""MEMIT (baseline of the built-in host)."""
