"""Scores of FFN neurons: how much each contributes to the tokens that follow a prompt."""

from .contribution import Contributions, contribution_scores
from .integrated import IntegratedGradients, integrated_gradients
from .lens import top_tokens
from .neurons import KINDS, NeuronScores, neuron_scores, score_readings
from .readings import Readings, read_prompts
from .targets import TargetTokens, target_tokens

__all__ = [
    "KINDS",
    "Contributions",
    "IntegratedGradients",
    "NeuronScores",
    "Readings",
    "TargetTokens",
    "contribution_scores",
    "integrated_gradients",
    "neuron_scores",
    "read_prompts",
    "score_readings",
    "target_tokens",
    "top_tokens",
]
