"""KNE: Knowledge Neuronal Ensemble (rows found by integrated gradients of the weights, trained together)."""
