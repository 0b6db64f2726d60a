"""Statistics of keys: text source, covariance of all layers in one pass, null space, cache on disk."""
