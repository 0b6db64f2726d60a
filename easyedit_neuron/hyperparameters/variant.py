"""A method with changed settings, as one text: ``NMKE method.mask_stage=solve``."""

import re
from dataclasses import dataclass
from typing import Any

from ..errors import HparamsError
from ..utils.plain_trees import parse_yaml

_PREFIX = "method."


def as_file_name(*words: str) -> str:
    """Words in letters that any file system takes, with dashes between them."""
    return "-".join(re.sub(r"[^\w.]+", "-", word) for word in words)


@dataclass(frozen=True)
class Variant:
    """``method``: of the registry, or EasyEdit's own as ``EasyEdit:GRACE``; ``changes``: settings."""

    method: str
    changes: tuple[str, ...] = ()

    @classmethod
    def of(cls, text: str) -> "Variant":
        """From a method and its settings, divided by blanks; ``HparamsError`` for a word that is none."""
        method, *changes = text.split() or [""]
        wrong = [change for change in changes if not re.fullmatch(r"[\w.+]+=\S+", change)]
        if wrong:
            raise HparamsError(f"--methods {text!r}: {wrong[0]!r} is no setting, as in method.v_lr=0.1")
        return cls(method, tuple(changes))

    @property
    def label(self) -> str:
        """Method and changes, as tables name them."""
        changes = ", ".join(change.removeprefix(_PREFIX) for change in self.changes)
        return f"{self.method} ({changes})" if changes else self.method

    @property
    def text(self) -> str:
        """What ``of`` reads."""
        return " ".join([self.method, *self.changes])

    @property
    def file_name(self) -> str:
        """The text in letters that any file system takes."""
        return as_file_name(self.method, *self.changes)

    def fields(self) -> dict[str, Any]:
        """Hyperparameter -> value; ``HparamsError`` for a setting of something else than the method."""
        values = {}
        for change in self.changes:
            name, _, value = change.partition("=")
            if not name.startswith(_PREFIX):
                raise HparamsError(f"{name!r} is no hyperparameter: write {_PREFIX}NAME=VALUE")
            values[name.removeprefix(_PREFIX)] = parse_yaml(value)  # as in a hyperparameter file
        return values
