"""What the command writes to stdout."""

from __future__ import annotations

import sys

from ..report.final import table

__all__ = ["show", "table"]


def show(text: str) -> None:
    """The one place that writes to stdout."""
    sys.stdout.write(text)
    sys.stdout.flush()
