"""The subcommands: ``easyedit-neuron NAME ...`` with arguments of its own; without one, the command line is
Hydra's.

Targets are ``"module:function"`` of this package, imported when they are used. A function takes the arguments
behind the name (``list[str]``, for argparse with ``prog="easyedit-neuron NAME"``) and returns the exit code;
a ``NeuronEditError`` becomes one line on stderr and exit code 2.
"""

from __future__ import annotations

import importlib
import re

from ...errors import NeuronEditError
from ...utils.suggest import did_you_mean
from ..fail import fail

COMMANDS: dict[str, str] = {
    "log": "editlog:show",
    "undo": "editlog:undo",
    "replay": "editlog:replay",
    "diff": "editlog:diff",
    "squash": "editlog:squash",
    "export": "transfer:export",
    "import": "transfer:import_",
}


def is_command(arguments: list[str]) -> bool:
    """Whether the arguments begin with a word; settings are ``name=value``, and options begin with a dash."""
    return bool(arguments) and re.fullmatch(r"[A-Za-z][\w-]*", arguments[0]) is not None


def run_command(arguments: list[str]) -> int:
    """Runs the subcommand ``arguments[0]``; returns the exit code."""
    name, rest = arguments[0], list(arguments[1:])
    if name not in COMMANDS:
        return fail(
            f"unknown command {name!r}: {did_you_mean(name, COMMANDS)} Settings are given as name=value"
        )
    module, _, function = COMMANDS[name].partition(":")
    try:
        return getattr(importlib.import_module(f".{module}", __name__), function)(rest)
    except NeuronEditError as problem:
        return fail(str(problem))
    except SystemExit as stop:  # argparse: --help, or a usage error that it has printed
        return stop.code if isinstance(stop.code, int) else int(bool(stop.code))
