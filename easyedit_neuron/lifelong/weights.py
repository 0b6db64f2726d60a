"""The weights that a run has changed: their origins, their way back when an edit fails, and what a state
holds of them."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ..edits.write import clone_weights, restore
from ..errors import StateError


class Weights:
    """Changed parameters of one model, found from what the method returns.

    Our own methods return copies of all that an edit changed, and put everything back themselves if they
    fail.

    Attributes:
        base: parameter name -> its value in the untouched model, of every parameter that an edit has changed.
        whole: False once the method has done more than write into the model's own parameters (it wrapped the
            model, added or
        took away
            parameters): what it did can then be neither saved nor undone.
    """

    def __init__(self, model: torch.nn.Module):
        self.model, self.whole = model, True
        self.base: dict[str, torch.Tensor] = {}

    def now(self) -> dict[str, torch.Tensor]:
        """The changed parameters as they are."""
        present = dict(self.model.named_parameters())
        return {name: present[name].detach() for name in self.base if name in present}

    def accept(self, originals: Mapping[str, torch.Tensor]) -> None:
        """After an edit that returned copies ``originals`` of what it changed.

        Raises:
            StateError: a changed weight is not finite; ``undo`` it.
        """
        for name in originals:
            if not bool(torch.isfinite(self.model.get_parameter(name)).all()):
                raise StateError(f"the method left {name} with values that are not finite")
        for name, value in originals.items():
            self.base.setdefault(
                name, value
            )  # the copy from before the first edit of a parameter is its origin

    def undo(self, originals: Mapping[str, torch.Tensor] | None) -> None:
        """Back to the weights from before the edit; ``originals`` is None where the method threw."""
        if originals is not None:
            restore(self.model, originals)

    def load(self, saved: Mapping[str, torch.Tensor]) -> None:
        """Writes a state's weights into the untouched model."""
        for name, value in saved.items():
            self._check(name, value)
        self.base |= clone_weights(self.model, saved)
        restore(self.model, saved)

    def _check(self, name: str, value: torch.Tensor) -> None:
        try:
            parameter = self.model.get_parameter(name)
        except AttributeError:
            raise StateError(f"the state has a weight {name!r}, the model has not") from None
        if parameter.shape != value.shape or parameter.dtype != value.dtype:
            raise StateError(
                f"the state's {name} is {value.dtype} {list(value.shape)}, the model's {parameter.dtype} "
                f"{list(parameter.shape)}"
            )


class GuardedWeights(Weights):
    """For methods that promise nothing: a copy of the whole untouched model in main memory, compared after
    every edit."""

    def __init__(self, model: torch.nn.Module):
        super().__init__(model)
        self._origin = {name: value.detach().to("cpu", copy=True) for name, value in model.named_parameters()}
        self._last: dict[str, torch.Tensor] = {}

    def accept(self, originals: Mapping[str, torch.Tensor]) -> None:
        """As the base class; what has changed is seen by comparing."""
        changed = self._changed()
        for name in changed:
            if not bool(torch.isfinite(self.model.get_parameter(name)).all()):
                raise StateError(f"the method left {name} with values that are not finite")
        self._last |= {name: self.model.get_parameter(name).detach().to("cpu", copy=True) for name in changed}
        self.base |= {name: self._origin[name] for name in self._last}

    def undo(self, originals: Mapping[str, torch.Tensor] | None) -> None:
        """Back to the weights from before the edit, whatever the method did to them.

        Raises:
            StateError: it did more than that.
        """
        changed = self._changed()
        if not self.whole:
            raise StateError(
                "the method changed the model's structure, so that a failed edit cannot be undone"
            )
        restore(self.model, {name: self._known(name) for name in changed})

    def load(self, saved: Mapping[str, torch.Tensor]) -> None:
        """As the base class."""
        super().load(saved)
        self._last = {name: value.to("cpu", copy=True) for name, value in saved.items()}
        self.base = {name: self._origin[name] for name in saved}

    def _changed(self) -> list[str]:
        present = dict(self.model.named_parameters())
        if present.keys() != self._origin.keys():
            self.whole = False
        return [
            name
            for name, value in present.items()
            if name in self._origin and not _same(value, self._known(name))
        ]

    def _known(self, name: str) -> torch.Tensor:
        return self._last.get(name, self._origin[name])


def _same(value: torch.Tensor, known: torch.Tensor) -> bool:
    """Equality of values; NaN is unlike itself, as it should be here."""
    return (
        value.shape == known.shape and value.dtype == known.dtype and torch.equal(value.detach().cpu(), known)
    )
