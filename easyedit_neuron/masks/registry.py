"""Mask functions by name."""

from __future__ import annotations

from typing import Optional

from ..errors import MaskError
from ..suggest import did_you_mean
from .contract import MaskFunction

_MASKS: dict[str, MaskFunction] = {}


def register_mask(name: str, function: Optional[MaskFunction] = None):
    """Make a mask function (see ``masks.contract``) known by ``name``; without ``function``, a decorator.

    Registering the same function under the same name again does nothing.

    Raises:
        MaskError: the name belongs to another function, or is not a word.

    Example:
        >>> @register_mask("strongest")
        ... @mask_function
        ... def strongest(scores, *, layer=None, count=100):
        ...     best = scores.max(dim=0).values.topk(count).indices
        ...     return NeuronMask(torch.zeros(scores.shape[1], dtype=torch.bool).scatter(0, best, True))
    """
    if function is None:
        return lambda decorated: register_mask(name, decorated)
    if not isinstance(name, str) or not name.strip() or not callable(function):
        raise MaskError(f"register_mask: expected a name and a function, got {name!r} and {function!r}")
    present = _MASKS.get(name)
    if present is not None and present is not function:
        raise MaskError(f"mask {name!r} is already registered by {present.__module__}.{present.__qualname__}; choose another name")
    _MASKS[name] = function
    return function


def get_mask(name: str) -> MaskFunction:
    """The mask function called ``name``.

    Raises:
        MaskError: no such mask; the message holds the nearest name.
    """
    if name not in _MASKS:
        raise MaskError(f"mask {name!r} is unknown: {did_you_mean(name, _MASKS)}")
    return _MASKS[name]


def mask_names() -> list[str]:
    """Registered names, sorted."""
    return sorted(_MASKS)
