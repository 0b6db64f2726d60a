"""What the command writes to the terminal."""

import sys

BAD_INPUT = 2
"""Exit code of every foreseeable mistake."""


def show(text: str) -> None:
    """Write to stdout; no other place of the package does.

    Control characters, which texts of others may hold, are shown and not sent to the terminal; so is what its
    encoding does not have.
    """
    text = _shown(text, "\n\t")
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
    sys.stdout.flush()


def fail(message: str) -> int:
    """Write one line to stderr; returns the exit code."""
    sys.stderr.write(f"easyedit-neuron: error: {_shown(' '.join(message.split()))}\n")
    return BAD_INPUT


def _shown(text: str, plain: str = "") -> str:
    """A text with its control characters, except the ``plain`` ones, as escapes."""
    return "".join(
        char if char in plain or char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )
