"""A method without imports, to be registered with a host."""


class PlainHyperParams:
    """No hyperparameters."""


def apply_plain(model, tok, requests, hparams, **kwargs):
    """Return the model unchanged."""
    return model, {}
