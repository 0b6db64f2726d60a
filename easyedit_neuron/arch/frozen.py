"""Gradients with respect to activations only: the parameters' flags off, and on again as they were."""

from __future__ import annotations

from contextlib import contextmanager

from torch import nn


@contextmanager
def frozen_parameters(model: nn.Module):
    """Inside the block no parameter of ``model`` asks for a gradient; afterwards every flag is as it was, also on an error."""
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
