"""Hidden states at single tokens, and keys of ascending layers in forwards that share their lower blocks."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from .capture import Capture, Prefix
from .view import ModelView


def take(states: Tensor, rows: Tensor, positions: Tensor) -> Tensor:
    """``states[rows, positions]`` of ``[B, T, ...]``, on the states' device; indices may lie on another."""
    return states[rows.to(states.device), positions.to(states.device)]


def prefix_before(
    view: ModelView, inputs: Mapping[str, Tensor], layer: int, prefix: Prefix | None = None
) -> Prefix | None:
    """Prefix that ends in front of a layer; ``None`` for layer 0. Arguments as in ``next_keys``."""
    if layer == 0 or (prefix is not None and prefix.layer == layer - 1):
        return prefix
    with Capture(view, [], prefix_of=layer - 1, stop_after=layer - 1, skip=prefix) as seen:
        view.model(**inputs, use_cache=False)
    return seen.prefix


def next_keys(
    view: ModelView, inputs: Mapping[str, Tensor], layer: int, prefix: Prefix | None
) -> tuple[Tensor, Prefix | None]:
    """Keys of a layer, and the prefix in front of it, from which the next call continues.

    Args:
        view: the model.
        inputs: keyword arguments of the model; the same token rows at every call.
        layer: at least that of an earlier call with these rows.
        prefix: the earlier call's prefix; ``None`` at the first.

    Returns:
        ``(keys [B, T, d_ff], prefix)``; the prefix is ``None`` in front of layer 0.
    """
    first_layer_run = 0 if prefix is None else prefix.layer + 1
    new_prefix_of = layer - 1 if layer > first_layer_run else None
    with Capture(view, [layer], stop_after="key", prefix_of=new_prefix_of, skip=prefix) as seen:
        view.model(**inputs, use_cache=False)
    return seen.key[layer], prefix if new_prefix_of is None else seen.prefix
