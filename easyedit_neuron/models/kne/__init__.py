"""KNE: Knowledge Neuronal Ensemble (rows chosen by integrated gradients of the weights)."""
