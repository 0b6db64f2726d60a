"""A method that imports nothing, to be registered with a host."""


class PlainHyperParams:
    """Nothing to set."""


def apply_plain(model, tok, requests, hparams, **kwargs):
    """Returns what it was given."""
    return model, {}
