class HyperParams:
    """Nothing in EasyEdit checks for it."""
