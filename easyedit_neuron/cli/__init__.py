"""The command ``easyedit-neuron`` (``python -m easyedit_neuron``): a Hydra application that edits a model and measures it."""

from __future__ import annotations

__all__ = ["main"]


def main(argv: list[str] | None = None) -> int:
    """Run the command line; 0 on success, 2 when a setting or the data is wrong (one line on stderr)."""
    # Hydra and torch are heavy, and "import easyedit_neuron.cli" is what the console script does first.
    from .app import run_command_line

    return run_command_line(argv)
