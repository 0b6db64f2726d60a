"""Target values that are searched for once and used under several settings, for searches over the solver."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ..edits.request import EditRequest
from ..edits.session import ModelSession
from .compute_z import TargetValues

_STORE = "target values"
_PREFIXES = ("v_", "clamp_", "kl_", "keep_", "context_", "fact_token", "seed", "easyedit_quirks")
"""Beginnings of the names of the hyperparameters that the search for z* reads."""


@contextmanager
def shared_targets(model: torch.nn.Module) -> Iterator[None]:
    """Search for the z* of a batch once inside the block, whatever the solver's settings.

    Later edits of the same batch under the same settings of the search get the first result, although the
    weights may differ: what is compared inside the block is the solve alone. ``EditBenchmark.search_targets``
    searches on the untouched weights, before the first edit.
    """
    cache = ModelSession.of(model).cache
    cache[_STORE] = {}
    try:
        yield
    finally:
        cache.pop(_STORE, None)


def stored_targets(
    model: torch.nn.Module, batch: list[EditRequest], hparams, layer: int, with_readings: bool
) -> tuple[dict[Any, TargetValues] | None, Any]:
    """The store of ``shared_targets`` (None outside of its block), and the key of a search in it."""
    store = ModelSession.of(model).cache.get(_STORE)
    if store is None:
        return None, None
    fields = {name: value for name, value in vars(hparams).items() if name.startswith(_PREFIXES)}
    read_layers = tuple(hparams.layers) if with_readings else ()
    return store, (tuple(request.fact for request in batch), layer, read_layers, repr(sorted(fields.items())))
