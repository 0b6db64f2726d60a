"""What is exported: edits, and the model that they were made on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from ..arch.view import ModelView
from ..editlog import EditLog
from ..editlog.undoing import view_of
from ..edits.record import EditRecord, LayerDelta
from ..edits.write import fingerprint, restore, write
from ..errors import NeuronEditError, StateError
from ..utils.fingerprint import tensors_fingerprint


@dataclass(frozen=True)
class Source:
    """Edits of one model, in order.

    Attributes:
        view: the model without these edits.
        records: the edits.
        ids: their names, as the side file of an export lists them.
        base: name of the model, for whoever loads the export.
    """

    view: ModelView
    records: Sequence[EditRecord]
    ids: Sequence[int | str]
    base: str

    @classmethod
    def of(
        cls,
        edits: Iterable[EditRecord],
        model: torch.nn.Module,
        base: str | None = None,
        ids: Sequence | None = None,
    ) -> Source:
        """Edits of ``model``: a list of records, or a log, of which those count that have not been taken
        back.

        ``base`` is by default the log's name of it, or the ``model_name`` of the first edit's
        hyperparameters, ``ids`` the log's numbers, or 0, 1, ...

        Raises:
            NeuronEditError: no edits, or none that changes anything.
            StateError: the model is not the log's base, or a file of the log is damaged.
        """
        if isinstance(edits, EditLog):
            edits.base.check(model)
            ids, base = edits.ids if ids is None else ids, base or edits.base.name
        records = list(edits)
        if not records or not any(record.deltas for record in records):
            raise NeuronEditError("there is nothing to export: no edit that changes a weight")
        ids = list(range(len(records))) if ids is None else list(ids)
        if len(ids) != len(records):
            raise NeuronEditError(f"ids: {len(ids)} given for {len(records)} edits; give one per edit")
        named, view = records[0].hparams.get("model_name"), view_of(model, records[0])
        for name, delta in ((name, delta) for record in records for name, delta in record.deltas.items()):
            shape = (
                (len(delta.left), len(delta.right)) if isinstance(delta, LayerDelta) else tuple(delta.shape)
            )
            if tuple(view.matrix(name).shape) != shape:
                raise StateError(
                    f"{name}: an edit changes a weight {list(shape)}, the model's is "
                    f"{list(view.matrix(name).shape)}; give the model that the edits were made on"
                )
        return cls(view, records, ids, base or (named if isinstance(named, str) else "in memory"))

    @property
    def model(self) -> torch.nn.Module:
        """The model."""
        return self.view.model

    @property
    def parameters(self) -> list[str]:
        """Names of all parameters that the edits change, sorted."""
        return sorted({name for record in self.records for name in record.deltas})

    @property
    def requests(self) -> int:
        """Number of single edits; a record may hold a batch of them."""
        return sum(len(record.requests) for record in self.records)

    @contextmanager
    def edited(self) -> Iterator[dict[str, torch.Tensor]]:
        """The model has the edits' weights inside the block (written one after the other, as when they were
        made), and its own again behind it. Yields copies of its own, {parameter name: tensor}."""
        originals: dict[str, torch.Tensor] = {}
        try:
            for record in self.records:
                for name, value in write(self.view, record.deltas).items():
                    originals.setdefault(name, value)
            yield originals
        finally:
            restore(self.model, originals)


def fingerprints(model: torch.nn.Module, touched: Sequence[str]) -> dict[str, str]:
    """{"touched": fingerprint of the named parameters, "rest": of all others}. Buffers are left out: some
    (rotary frequencies) are computed where the model is loaded, and round as the machine does."""
    names = set(touched)
    rest = ((name, tensor) for name, tensor in model.named_parameters() if name not in names)
    return {"touched": fingerprint(model, touched), "rest": tensors_fingerprint(rest)}
