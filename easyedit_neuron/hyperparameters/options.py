"""Checked options: a dataclass whose fields are declared once, with type, default and help.

A method inherits the options of its own mask as hyperparameters; other methods set the same options in the
hyperparameter ``mask_options``.
"""

import dataclasses
import typing
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ..errors import HparamsError
from .typecheck import TypeMismatch, convert


def doc(text: str, default: Any = ..., factory: Any = None) -> Any:
    """A dataclass field with its documentation in ``metadata["help"]``."""
    metadata = {"help": text}
    if factory is not None:
        return field(default_factory=factory, metadata=metadata)
    return field(metadata=metadata) if default is ... else field(default=default, metadata=metadata)


def require(holds: bool, name: str, message: str) -> None:
    """``HparamsError`` that names the field unless ``holds``."""
    if not holds:
        raise HparamsError(f"field '{name}': {message}")


@dataclass(kw_only=True)
class Options:
    """Base of option dataclasses: the types of all fields are checked, then ``validate`` checks their ranges.

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
            try:
                setattr(self, entry.name, convert(getattr(self, entry.name), hints[entry.name]))
            except TypeMismatch as problem:
                raise HparamsError(f"field '{entry.name}': {problem}") from None

    def validate(self) -> None:
        """Check ranges and rules between fields; raise ``HparamsError`` naming the field."""

    @classmethod
    def field_names(cls) -> list[str]:
        """Names of all fields, in the order of their declaration."""
        return [entry.name for entry in dataclasses.fields(cls)]

    def require_positive(self, *names: str) -> None:
        """``HparamsError`` for the first of the fields that is not greater than 0."""
        for name in names:
            require(getattr(self, name) > 0, name, f"must be greater than 0, got {getattr(self, name)}")

    def require_not_negative(self, *names: str) -> None:
        """``HparamsError`` for the first of the fields that is negative."""
        for name in names:
            require(getattr(self, name) >= 0, name, f"must not be negative, got {getattr(self, name)}")

    def require_share(self, *names: str) -> None:
        """``HparamsError`` for the first of the fields that is set and no share in (0, 1]."""
        for name in names:
            value = getattr(self, name)
            require(value is None or 0 < value <= 1, name, f"must be in (0, 1], got {value}")
