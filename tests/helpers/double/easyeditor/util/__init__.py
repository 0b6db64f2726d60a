from .hparams import HyperParams

__all__ = ["HyperParams"]
