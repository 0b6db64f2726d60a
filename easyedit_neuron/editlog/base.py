"""The base model of a log, and the check of a model against fingerprints of its parameters."""

from dataclasses import dataclass, field
from typing import Any

import torch

from ..errors import StateError
from ..utils.fingerprint import model_fingerprint, tensors_fingerprint


@dataclass(frozen=True)
class Base:
    """The model before the first edit of a log: a path, hub name, or name of a shipped model.

    ``fingerprint``: of all its weights and buffers, if it was taken. ``weights``: name of every edited
    parameter -> {"fingerprint", "dtype", "shape"}.
    """

    name: str
    fingerprint: str | None
    weights: dict[str, dict[str, Any]] = field(default_factory=dict)

    def check(self, model: torch.nn.Module) -> None:
        """Raise a ``StateError`` that says what differs, unless ``model`` is the base."""
        remedy = "load the unedited model that the edits were made on, in the same dtype"
        check_weights(model, self.weights, f"the log's base ({self.name})", remedy)
        if self.fingerprint is not None and model_fingerprint(model) != self.fingerprint:
            raise StateError(
                f"the model is not the log's base ({self.name}): the weights that the log edits are the "
                "same, others differ. Nothing was changed; load the model that the edits were made on"
            )


def check_weights(
    model: torch.nn.Module, expected: dict[str, dict[str, Any]], description: str, remedy: str
) -> None:
    """Raise a ``StateError`` unless the model's parameters are the expected ones.

    ``description`` and ``remedy`` say in the message which model is expected and what to do.
    """
    for name, weight in expected.items():
        difference = _difference(model, name, weight)
        if difference:
            raise StateError(f"the model is not {description}: {difference}. Nothing was changed; {remedy}")


def _difference(model: torch.nn.Module, name: str, expected: dict[str, Any]) -> str | None:
    try:
        parameter = model.get_parameter(name)
    except AttributeError:
        return f"it has no parameter {name!r}"
    dtype, shape = str(parameter.dtype).removeprefix("torch."), list(parameter.shape)
    if dtype == expected["dtype"] and tensors_fingerprint([(name, parameter)]) == expected["fingerprint"]:
        return None  # perhaps of another shape: neurons that were added are zero
    if (dtype, shape) != (expected["dtype"], expected["shape"]):
        return f"its {name} is {dtype} {shape}, not {expected['dtype']} {expected['shape']}"
    return f"its {name} has other values"
