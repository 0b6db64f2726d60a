"""The weights that a run has changed: their untouched values, and the way back from a failed edit."""

from collections.abc import Iterable, Mapping

import torch

from ..arch.widen import padded_like
from ..edits.write import clone_weights, make_room, restore
from ..errors import StateError
from ..utils.fingerprint import tensors_fingerprint


class EditedWeights:
    """Changed parameters of one model, known from the copies that the method returns (our own methods').

    ``base``: parameter name -> value in the untouched model. ``restorable``: False once the method has done
    more than write into the model's own parameters, which can be neither saved nor undone.
    """

    def __init__(self, model: torch.nn.Module):
        self.model, self.restorable = model, True
        self.base: dict[str, torch.Tensor] = {}

    def current(self) -> dict[str, torch.Tensor]:
        present = dict(self.model.named_parameters())
        return {name: present[name].detach() for name in self.base if name in present}

    def fingerprints(self) -> dict[str, str]:
        return {name: tensors_fingerprint([(name, value)]) for name, value in sorted(self.current().items())}

    def accept(self, originals: Mapping[str, torch.Tensor]) -> None:
        """Note an edit that returned the copies ``originals``; ``StateError`` if a weight is not finite."""
        self._check_finite(originals)
        for name, value in originals.items():
            # The copy from before the first edit of a parameter is its value in the untouched model.
            self.base.setdefault(name, value)
        for name in self.current():
            self.base[name] = padded_like(self.model, name, self.base[name])

    def undo(self, originals: Mapping[str, torch.Tensor] | None) -> None:
        """Put back the weights from before a failed edit; ``originals`` is None where the method raised."""
        if originals is not None:
            restore(self.model, originals)

    def load(self, saved: Mapping[str, torch.Tensor]) -> None:
        """Write the weights of a saved state of this run into the untouched model."""
        make_room(self.model, saved)
        self.base |= clone_weights(self.model, saved)
        restore(self.model, saved)

    def _check_finite(self, names: Iterable[str]) -> None:
        for name in names:
            if not bool(torch.isfinite(self.model.get_parameter(name)).all()):
                raise StateError(f"the method left {name} with values that are not finite")


class ComparedWeights(EditedWeights):
    """Changed parameters found by comparing the whole model with a copy in main memory after every edit.

    Methods of others may change more than they return, and may fail halfway.
    """

    def __init__(self, model: torch.nn.Module):
        super().__init__(model)
        self._untouched = {name: _copy(value) for name, value in model.named_parameters()}
        self._latest: dict[str, torch.Tensor] = {}  # of the changed parameters, after the last good edit

    def accept(self, originals: Mapping[str, torch.Tensor]) -> None:
        changed = self._changed()
        self._check_finite(changed)
        self._latest |= {name: _copy(self.model.get_parameter(name)) for name in changed}
        self.base |= {name: self._untouched[name] for name in self._latest}

    def undo(self, originals: Mapping[str, torch.Tensor] | None) -> None:
        """Put back the weights from before a failed edit; ``StateError`` if parameters came or went."""
        changed = self._changed()
        if not self.restorable:
            raise StateError("the method changed the model's structure: a failed edit cannot be undone")
        restore(self.model, {name: self._before(name) for name in changed})

    def load(self, saved: Mapping[str, torch.Tensor]) -> None:
        super().load(saved)
        self._latest = {name: _copy(value) for name, value in saved.items()}
        self.base = {name: self._untouched[name] for name in saved}

    def _changed(self) -> list[str]:
        present = dict(self.model.named_parameters())
        if present.keys() != self._untouched.keys():
            self.restorable = False
        shared = [name for name in present if name in self._untouched]
        return [name for name in shared if not _same(present[name], self._before(name))]

    def _before(self, name: str) -> torch.Tensor:
        return self._latest.get(name, self._untouched[name])


def _copy(value: torch.Tensor) -> torch.Tensor:
    return value.detach().to("cpu", copy=True)


def _same(value: torch.Tensor, before: torch.Tensor) -> bool:
    """Equality of shape, dtype and values; NaN differs from itself, so that it counts as a change."""
    same_form = value.shape == before.shape and value.dtype == before.dtype
    return same_form and torch.equal(value.detach().cpu(), before)
