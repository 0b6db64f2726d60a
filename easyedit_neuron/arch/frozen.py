"""Flags of a model that are changed for a while and come back as they were: gradients of the parameters,
training mode."""

from __future__ import annotations

from contextlib import contextmanager

from torch import nn


@contextmanager
def frozen_parameters(model: nn.Module):
    """Inside the block no parameter of ``model`` asks for a gradient; afterwards every flag is as it was,
    also on an error."""
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


@contextmanager
def eval_mode(model: nn.Module):
    """No dropout inside the block; afterwards every submodule's training flag is as it was, also on an
    error."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
