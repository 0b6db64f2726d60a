"""Which model a log is of: fingerprints of the parameters that it edits, and what is said where they do not
fit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from .. import resources
from ..errors import StateError
from ..utils.fingerprint import model_fingerprint, tensors_fingerprint


@dataclass(frozen=True)
class Base:
    """The model before the first edit of a log.

    Attributes:
        name: path, hub name, or name of the shipped model.
        fingerprint: of all its weights and buffers (``model_fingerprint``); None where nobody took it.
        weights: name of every parameter that is edited -> its fingerprint (``tensors_fingerprint``), dtype
            and shape.
    """

    name: str
    fingerprint: str | None
    weights: dict[str, dict[str, Any]] = field(default_factory=dict)

    def check(self, model: torch.nn.Module) -> None:
        """``StateError`` that says what differs, unless ``model`` is the base."""
        check_weights(
            model,
            self.weights,
            "fingerprint",
            f"the log's base ({self.name})",
            "load the unedited model that the edits were made on, in the same dtype",
        )
        if self.fingerprint is not None and model_fingerprint(model) != self.fingerprint:
            raise StateError(
                f"the model is not the log's base ({self.name}): the weights that the log edits are the same, "
                "others differ. Nothing was changed; load the model that the edits were made on"
            )


def check_weights(
    model: torch.nn.Module, wanted: dict[str, dict[str, Any]], which: str, what: str, remedy: str
) -> None:
    """``StateError`` unless the model's parameters have the wanted dtypes, shapes and fingerprints.

    Args:
        model: not changed.
        wanted: parameter name -> {"dtype", "shape", ``which``: fingerprint}.
        which: key of the fingerprint.
        what, remedy: for the message, which model is wanted and what to do.
    """
    for name, about in wanted.items():
        try:
            value = model.get_parameter(name)
        except AttributeError:
            raise StateError(
                f"the model is not {what}: it has no parameter {name!r}. Nothing was changed; {remedy}"
            ) from None
        form = [str(value.dtype).removeprefix("torch."), list(value.shape)]
        if form != [about["dtype"], about["shape"]]:
            raise StateError(
                f"the model is not {what}: its {name} is {form[0]} {form[1]}, not {about['dtype']} "
                f"{about['shape']}. Nothing was changed; {remedy}"
            )
        if tensors_fingerprint([(name, value)]) != about[which]:
            raise StateError(
                f"the model is not {what}: its {name} has other values. Nothing was changed; {remedy}"
            )


def portable_name(name: str) -> str:
    """The name of a shipped model where its folder is meant, which is another one on every machine."""
    return next((short for short in resources.SHIPPED_MODELS if name == resources.model_path(short)), name)
