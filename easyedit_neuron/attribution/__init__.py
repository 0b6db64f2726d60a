"""How much each FFN neuron contributes to the next token of a prompt."""

from .neurons import KINDS, NeuronScores, neuron_scores

__all__ = ["KINDS", "NeuronScores", "neuron_scores"]
