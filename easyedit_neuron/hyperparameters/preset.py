"""Published settings of a method, by name: ``method.preset=paper`` on top of any model's file."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Preset:
    """``values`` of hyperparameters, and the ``source`` that publishes them with what it leaves open.

    What depends on the model (layers, z*, learning rates) is the file's.
    """

    source: str
    values: Mapping[str, Any]
