"""What the command writes to the terminal."""

import sys

BAD_INPUT = 2
"""Exit code of every foreseeable mistake."""


def show(text: str) -> None:
    """Write to stdout; no other place of the package does.

    Control characters, which texts of others may hold, are shown and not sent to the terminal; so is what its
    encoding does not have.
    """
    text = "".join(char if char in "\n\t" or char.isprintable() else _escaped(char) for char in text)
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
    sys.stdout.flush()


def fail(message: str) -> int:
    """Write one line to stderr; returns the exit code."""
    line = "".join(char if char.isprintable() else _escaped(char) for char in " ".join(message.split()))
    sys.stderr.write(f"easyedit-neuron: error: {line}\n")
    return BAD_INPUT


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
