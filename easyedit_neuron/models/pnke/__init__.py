"""PNKE: Precise Neuron-Level Knowledge Editing (causal neurons, critical subset, ridge inside it)."""
