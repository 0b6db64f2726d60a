"""The subcommands, ``easyedit-neuron NAME ...``; a command line that begins with no such word is Hydra's.

Each is a module that is imported when it is used. Its docstring is the help; ``add_arguments(parser)``
declares the arguments, and ``run(args)`` raises ``NeuronEditError`` for every foreseeable mistake.
"""

import argparse
import importlib
import re

from ...errors import NeuronEditError
from ...utils.suggest import did_you_mean
from ..output import fail

_NAMES = (
    "edit",
    "ask",
    "serve",
    "demo",
    "tune",
    "bench",
    "paper",
    "model",
    "arch",
    "log",
    "undo",
    "replay",
    "diff",
    "squash",
    "export",
    "push",
)
COMMANDS = {name: name for name in _NAMES} | {"import": "import_"}
"""Name of the command -> its module."""


def is_command(arguments: list[str]) -> bool:
    """Whether the arguments begin with a word; settings are ``name=value``, and options begin with a dash."""
    return bool(arguments) and re.fullmatch(r"[A-Za-z][\w-]*", arguments[0]) is not None


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        super().error(str(NeuronEditError(message)))  # shortened


def run_command(arguments: list[str]) -> int:
    name = arguments[0]
    if name not in COMMANDS:
        suggestion = did_you_mean(name, COMMANDS)
        return fail(f"unknown command {name!r}: {suggestion} Settings are given as name=value")
    command = importlib.import_module(f".{COMMANDS[name]}", __name__)
    parser = _Parser(prog=f"easyedit-neuron {name}", description=command.__doc__)
    command.add_arguments(parser)
    try:
        command.run(parser.parse_args(arguments[1:]))
    except NeuronEditError as problem:
        return fail(str(problem))
    except OSError as problem:  # of a file or folder that an argument names
        return fail(f"{problem.filename or name}: {problem.strerror or problem}")
    except SystemExit as stop:  # argparse: --help, or a usage error that it has printed
        return stop.code if isinstance(stop.code, int) else int(bool(stop.code))
    return 0
