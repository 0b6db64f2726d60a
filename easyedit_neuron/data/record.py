"""A record of a file, with accessors that name file, record and field when something is wrong."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..utils.suggest import did_you_mean


@dataclass(frozen=True)
class Record:
    """``raw`` is the mapping at position ``index`` of ``path``, below the field names in ``trail``."""

    path: Path
    index: int
    raw: Any
    trail: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.raw, dict):
            place = f"{self.path}: record {self.index}"
            field = f": field '{'.'.join(self.trail)}'" if self.trail else ""
            raise DataError(f"{place}{field} must be a mapping, found {type(self.raw).__name__}")

    def error(self, name: str, problem: str) -> DataError:
        """The error for the field ``name``; the caller raises it."""
        field = ".".join((*self.trail, name))
        return DataError(f"{self.path}: record {self.index}: field '{field}' {problem}")

    def has(self, name: str) -> bool:
        return self.raw.get(name) is not None

    def first_name(self, *names: str) -> str:
        """The first of these field names that the record has; the first of all where it has none."""
        return next((name for name in names if name in self.raw), names[0])

    def value(self, name: str, kind: type) -> Any:
        """A field that must be there and of type ``kind``."""
        if name not in self.raw:
            raise self.error(name, f"is missing: {did_you_mean(name, self.raw)}")
        if not isinstance(self.raw[name], kind):
            raise self.error(name, f"must be of type {kind.__name__}, found {type(self.raw[name]).__name__}")
        return self.raw[name]

    def string(self, name: str) -> str:
        """A string that is not blank, as it stands in the file."""
        value = self.value(name, str)
        if not value.strip():
            raise self.error(name, "is empty")
        return value

    def strings(self, name: str) -> list[str]:
        """A list of strings, none of them blank; the list may be empty."""
        values = self.value(name, list)
        for position, item in enumerate(values):
            if not isinstance(item, str) or not item.strip():
                raise self.error(f"{name}[{position}]", f"must be a string that is not empty, found {item!r}")
        return values

    def first(self, name: str) -> str | None:
        """The first string of a string, a list of aliases, or a list of such lists; None if blank or
        absent."""
        first = next(self._leaves(name, self.raw[name]), "") if self.has(name) else ""
        return first if first.strip() else None

    def _leaves(self, name: str, value: Any) -> Iterator[str]:
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            for item in value:
                yield from self._leaves(name, item)
        else:
            raise self.error(name, f"must be a string or a list of strings, found {type(value).__name__}")

    def with_fields(self, **fields: Any) -> "Record":
        """The record with some fields replaced or added."""
        return replace(self, raw={**self.raw, **fields})

    def child(self, name: str) -> "Record":
        return Record(self.path, self.index, self.value(name, dict), (*self.trail, name))

    def children(self, name: str) -> list["Record"]:
        """The mappings in a list; null counts as an empty list."""
        if name in self.raw and self.raw[name] is None:
            return []
        return [
            Record(self.path, self.index, item, (*self.trail, f"{name}[{position}]"))
            for position, item in enumerate(self.value(name, list))
        ]
