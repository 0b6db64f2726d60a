"""How much each FFN neuron contributes to tokens that follow a prompt."""

from .contribution import Contributions, contribution_scores
from .integrated import IntegratedGradients, integrated_gradients
from .neurons import KINDS, NeuronScores, neuron_scores
from .targets import TargetTokens, target_tokens

__all__ = [
    "Contributions", "IntegratedGradients", "KINDS", "NeuronScores", "TargetTokens", "contribution_scores", "integrated_gradients",
    "neuron_scores", "target_tokens",
]
