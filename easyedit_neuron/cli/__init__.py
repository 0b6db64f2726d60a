"""The command ``easyedit-neuron`` (``python -m easyedit_neuron``): a Hydra application that edits a model and
measures it, and subcommands for the edits that were made (``commands``)."""

import sys

__all__ = ["main"]


def main(argv: list[str] | None = None) -> int:
    """Run the command line; 0 on success, 2 when a setting or the data is wrong (one line on stderr)."""
    from .commands import is_command, run_command

    arguments = sys.argv[1:] if argv is None else list(argv)
    if is_command(arguments):
        return run_command(arguments)
    # Hydra and torch are slow to import, and the console script imports this module first.
    from .app import run_command_line

    return run_command_line(arguments)
