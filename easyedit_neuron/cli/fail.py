"""How the command line says that a setting, a file or the data is wrong."""

from __future__ import annotations

import sys

BAD_INPUT = 2
"""Exit code of every foreseeable mistake."""


def fail(message: str) -> int:
    """One line on stderr; returns the exit code."""
    sys.stderr.write(f"easyedit-neuron: error: {' '.join(message.split())}\n")
    return BAD_INPUT
