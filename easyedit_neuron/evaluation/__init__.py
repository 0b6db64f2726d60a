"""Measuring an edited model: EasyEdit's metrics with EasyEdit's numbers, and what EasyEdit does not offer.

Nothing here changes a weight, a tokenizer attribute or a padding side.
"""

from .batched import Prediction, exact_match_by_generation, perplexity, predict_targets, token_accuracy
from .fluency import fluency, ngram_entropy
from .protocol import evaluate_all, finalize_locality, locality_reference, summarize
from .quality import compute_edit_quality

__all__ = ["Prediction", "compute_edit_quality", "evaluate_all", "exact_match_by_generation"]
__all__ += ["finalize_locality", "fluency", "locality_reference", "ngram_entropy", "perplexity"]
__all__ += ["predict_targets", "summarize", "token_accuracy"]
