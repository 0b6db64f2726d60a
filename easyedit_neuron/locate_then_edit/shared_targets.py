"""Target values that are searched for once and used under several settings or by several methods."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from ..edits.request import EditRequest
from ..edits.session import ModelSession
from .compute_z import TargetValues

_STORE = "target values"
_PREFIXES = (
    "v_",
    "clamp_",
    "kl_",
    "keep_",
    "context_",
    "fact_token",
    "seed",
    "easyedit_quirks",
    "use_chat_template",
)
"""Beginnings of the names of the hyperparameters that the search for z* reads."""


@contextmanager
def shared_targets(model: torch.nn.Module) -> Iterator[SharedTargets]:
    """Search for the z* of a batch once inside the block, whatever the solver's settings.

    Later edits of the same batch under the same settings of the search get the first result, although the
    weights may differ: what is compared inside the block is the solve alone. ``EditBenchmark.search_targets``
    searches on the untouched weights, before the first edit.
    """
    cache = ModelSession.of(model).cache
    cache[_STORE] = SharedTargets()
    try:
        yield cache[_STORE]
    finally:
        cache.pop(_STORE, None)


@dataclass
class SharedTargets:
    """The results of searches; ``saved_seconds``: CPU seconds of those that were not made again."""

    saved_seconds: float = 0.0
    _entries: dict[Any, tuple[TargetValues, float]] = field(default_factory=dict)

    @staticmethod
    def of(model: torch.nn.Module) -> SharedTargets | None:
        """Those of the block around; None outside of it."""
        return ModelSession.of(model).cache.get(_STORE)

    def get(
        self, batch: list[EditRequest], hparams, layer: int, read_layers: Sequence[int]
    ) -> TargetValues | None:
        """The result of an earlier search that has readings of ``read_layers``."""
        targets, seconds = self._entries.get(_key(batch, hparams, layer), (None, 0.0))
        if targets is None:
            return None
        if read_layers and (targets.readings is None or not targets.readings.covers(read_layers)):
            return None
        self.saved_seconds += seconds
        return targets

    def add(
        self, batch: list[EditRequest], hparams, layer: int, targets: TargetValues, seconds: float
    ) -> None:
        """Add the result of a search that took ``seconds`` of CPU."""
        self._entries[_key(batch, hparams, layer)] = targets, seconds


def _key(batch: list[EditRequest], hparams, layer: int) -> Any:
    fields = {name: value for name, value in vars(hparams).items() if name.startswith(_PREFIXES)}
    site = "ffn_out" if hparams.path == "rome" else "layer_out"
    return tuple(request.fact for request in batch), site, layer, repr(sorted(fields.items()))
