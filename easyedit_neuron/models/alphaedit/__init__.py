"""AlphaEdit (baseline of the built-in host)."""
