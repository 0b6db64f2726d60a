"""Hidden states at single tokens, and keys of one layer after another without running what lies below
again."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from .capture import Capture, Prefix
from .view import ModelView


def take(states: Tensor, rows: Tensor, positions: Tensor) -> Tensor:
    """``states[rows, positions]`` of ``[B, T, ...]``, on the states' device, wherever the indices are."""
    return states[rows.to(states.device), positions.to(states.device)]


def prefix_before(
    view: ModelView, inputs: Mapping[str, Tensor], layer: int, prefix: Prefix | None = None
) -> Prefix | None:
    """The prefix that ends right in front of a layer; ``None`` in front of layer 0. Arguments as those of
    ``next_keys``."""
    if layer == 0 or (prefix is not None and prefix.layer == layer - 1):
        return prefix
    with Capture(view, [], prefix_of=layer - 1, stop_after=layer - 1, skip=prefix) as seen:
        view.model(**inputs, use_cache=False)
    return seen.prefix


def next_keys(
    view: ModelView, inputs: Mapping[str, Tensor], layer: int, prefix: Prefix | None
) -> tuple[Tensor, Prefix | None]:
    """Keys ``[B, T, d_ff]`` of a layer, and the prefix that ends right in front of it, for the layers from
    there on.

    Args:
        view: the model.
        inputs: the same token rows at every call.
        layer: not below that of an earlier call with these rows.
        prefix: what the earlier call gave; ``None`` at the first.

    Returns:
        ``(keys, prefix)``; the prefix is ``None`` in front of layer 0.
    """
    reached = 0 if prefix is None else prefix.layer + 1
    new = layer - 1 if layer > reached else None
    with Capture(view, [layer], stop_after="key", prefix_of=new, skip=prefix) as seen:
        view.model(**inputs, use_cache=False)
    return seen.key[layer], prefix if new is None else seen.prefix
