"""Base classes of all hyperparameters, and the check of their values against the type annotations."""
