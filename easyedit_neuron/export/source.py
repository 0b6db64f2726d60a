"""The edits to export, and the model that they were made on."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from ..arch.view import ModelView
from ..arch.widen import own_width
from ..editlog import EditLog
from ..editlog.summed_change import shape_of
from ..editlog.undoing import view_of
from ..edits.record import EditRecord
from ..edits.write import fingerprint, fits, grow, restore, write
from ..errors import NeuronEditError, StateError
from ..utils.fingerprint import tensors_fingerprint


@dataclass(frozen=True)
class EditedWeights:
    """Copies of the weights before the edits change them, and fingerprints before (split) and after."""

    originals: dict[str, torch.Tensor]
    before: dict[str, str]
    after: str


@dataclass(frozen=True)
class Source:
    """Edits of one model, in order; ``ids`` and ``base`` name them and the model in the side file."""

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
    ) -> "Source":
        """Edits of ``model``: a list of records, or the edits of a log that are in the weights.

        ``base`` is by default the log's name of the model, or ``model_name`` of the first edit's
        hyperparameters; ``ids`` are the log's, or 0, 1, ...
        """
        if isinstance(edits, EditLog):
            edits.base.check(model)
            ids = edits.ids if ids is None else ids
            base = base or edits.base.name
        records = list(edits)
        if not any(record.deltas for record in records):
            raise NeuronEditError("there is nothing to export: no edit that changes a weight")
        ids = list(range(len(records))) if ids is None else list(ids)
        if len(ids) != len(records):
            raise NeuronEditError(f"ids: {len(ids)} given for {len(records)} edits; give one per edit")
        for record in records:
            grow(view_of(model, record), record.deltas)
        view = view_of(model, records[0])
        for name, delta in ((name, delta) for record in records for name, delta in record.deltas.items()):
            shape, present = list(shape_of(delta)), list(view.matrix(name).shape)
            if not fits(delta, tuple(present), own_width(view)):
                problem = f"an edit changes a weight {shape}, the model's is {present}"
                raise StateError(f"{name}: {problem}; give the model that the edits were made on")
        model_name = records[0].hparams.get("model_name")
        return cls(view, records, ids, base or (model_name if isinstance(model_name, str) else "in memory"))

    @property
    def model(self) -> torch.nn.Module:
        return self.view.model

    @property
    def parameters(self) -> list[str]:
        """Names of all parameters that the edits change, sorted."""
        return sorted({name for record in self.records for name in record.deltas})

    @contextmanager
    def edited(self) -> Iterator[EditedWeights]:
        """Give the model the weights of the edits, written one after the other, inside the block only."""
        names = self.parameters
        before = split_fingerprints(self.model, names)
        originals: dict[str, torch.Tensor] = {}
        try:
            for record in self.records:
                for name, value in write(self.view, record.deltas).items():
                    originals.setdefault(name, value)
            yield EditedWeights(originals, before, fingerprint(self.model, names))
        finally:
            restore(self.model, originals)


def split_fingerprints(model: torch.nn.Module, touched: Sequence[str]) -> dict[str, str]:
    """{"touched": fingerprint of the named parameters, "rest": of all others}.

    Buffers are left out: some (rotary frequencies) are computed when the model is loaded, so that their
    rounding depends on the machine.
    """
    names = set(touched)
    rest = ((name, tensor) for name, tensor in model.named_parameters() if name not in names)
    return {"touched": fingerprint(model, touched), "rest": tensors_fingerprint(rest)}
