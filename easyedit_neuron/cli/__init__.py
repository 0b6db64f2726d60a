"""The command ``easyedit-neuron`` (``python -m easyedit_neuron``): a Hydra application that edits a model and
measures it, and subcommands for the edits that were made (``commands``)."""

import sys

__all__ = ["main"]

INTERRUPTED = 130
"""Exit code after Ctrl-C, as of a shell."""


def main(argv: list[str] | None = None) -> int:
    """Run the command line; 0 on success, 2 when a setting or the data is wrong (one line on stderr), 130
    after Ctrl-C."""
    from .commands import is_command, run_command

    arguments = sys.argv[1:] if argv is None else list(argv)
    try:
        if is_command(arguments):
            return run_command(arguments)
        # Hydra and torch are slow to import, and the console script imports this module first.
        from .app import run_command_line

        return run_command_line(arguments)
    except KeyboardInterrupt:
        remedy = "" if is_command(arguments) else ": the same command goes on from the newest saved state"
        sys.stderr.write(f"\neasyedit-neuron: interrupted{remedy}\n")
        return INTERRUPTED
