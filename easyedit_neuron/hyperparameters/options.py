"""Checked options: a dataclass whose fields are declared once, with type, default and help.

A method inherits the options of its own mask as hyperparameters; other methods set the same options in the
hyperparameter ``mask_options``.
"""

import dataclasses
import typing
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ..errors import HparamsError
from .typecheck import Range, TypeMismatch, convert

SEED = {"least": 0, "most": 2**32 - 1}
"""Range of a seed: what numpy takes, and torch after a layer's number is mixed in."""


def doc(text: str, default: Any = ..., factory: Any = None, **bounds: float) -> Any:
    """A dataclass field with its documentation in ``metadata["help"]`` and the ``Range`` of its numbers.

    ``bounds`` (``least``, ``above``, ``most``, ``below``) hold for each number of a list or mapping too; an
    optional field may be None besides. An ``int`` or ``float`` field of this package states a bound.
    """
    metadata = {"help": text, "range": Range(**bounds)}
    if factory is not None:
        return field(default_factory=factory, metadata=metadata)
    return field(metadata=metadata) if default is ... else field(default=default, metadata=metadata)


def require(holds: bool, name: str, message: str) -> None:
    """``HparamsError`` that names the field unless ``holds``."""
    if not holds:
        raise HparamsError(f"field '{name}': {message}")


@dataclass(kw_only=True)
class Options:
    """Base of option dataclasses: types and ranges of all fields are checked, then ``validate``'s own rules.

    Attributes:
        ALIASES: other spelling -> field, accepted in ``mask_options``.
    """

    ALIASES: ClassVar[dict[str, str]] = {}

    def __post_init__(self) -> None:
        self._convert_types()
        self.validate()

    def _convert_types(self) -> None:
        hints = typing.get_type_hints(type(self))
        for entry in dataclasses.fields(self):
            limits = entry.metadata.get("range", Range())
            try:
                setattr(self, entry.name, convert(getattr(self, entry.name), hints[entry.name], limits))
            except TypeMismatch as problem:
                raise HparamsError(f"field '{entry.name}': {problem}") from None

    def validate(self) -> None:
        """Check what no range says, as rules between fields; raise ``HparamsError`` naming the field."""

    @classmethod
    def field_names(cls) -> list[str]:
        """Names of all fields, in the order of their declaration."""
        return [entry.name for entry in dataclasses.fields(cls)]
