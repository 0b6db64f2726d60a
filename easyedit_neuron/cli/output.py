"""What the command writes to the terminal."""

import sys

BAD_INPUT = 2
"""Exit code of every foreseeable mistake."""


def show(text: str) -> None:
    """Write to stdout; no other place of the package does."""
    sys.stdout.write(text)
    sys.stdout.flush()


def fail(message: str) -> int:
    """Write one line to stderr; returns the exit code."""
    sys.stderr.write(f"easyedit-neuron: error: {' '.join(message.split())}\n")
    return BAD_INPUT
