"""Lasting: every edit is a neuron that is added to an FFN; no existing weight changes."""
