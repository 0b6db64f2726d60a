"""Statistics of a layer's keys: text source, covariance in one pass over all layers, null space, cache on
disk."""
