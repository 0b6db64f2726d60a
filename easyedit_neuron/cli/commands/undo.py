"""``easyedit-neuron undo FOLDER ID [ID ...] --out DIR``"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file

from ...editlog import EditLog, replay, undo
from ...edits.write import restore
from ...errors import StateError
from ..output import show
from .common import (
    FOLDER_HELP,
    WEIGHTS,
    add_out_argument,
    describe_output,
    describe_request,
    load_base_for_output,
    open_log,
    save_weights,
    write_output,
)

DESCRIPTION = """Take single edits out of the weights of a run. FOLDER stays as it is; DIR gets the weights without
the edits, and the log with an entry for each undo."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("folder", metavar="FOLDER", help=FOLDER_HELP)
    parser.add_argument(
        "ids", metavar="ID", nargs="+", type=int, help="edit, as 'easyedit-neuron log FOLDER' numbers them"
    )
    add_out_argument(parser)


def run(args: argparse.Namespace) -> None:
    """Take the edits out and write the result."""
    log = open_log(args.folder)
    entries = [log.line(number) for number in args.ids]  # fails for an unknown edit before a model is loaded
    model = load_base_for_output(log, args)
    _restore_newest_weights(log, model)

    def fill(part: Path) -> None:
        copy = log.copy(part / "log")
        for number in args.ids:
            undo(model, copy, number)
        save_weights(copy, model, part)

    write_output(args.out, fill)
    lines = [f"edit {entry['id']} taken out: {describe_request(entry)}\n" for entry in entries]
    show("".join(lines) + describe_output(args.out))


def _restore_newest_weights(log: EditLog, model: torch.nn.Module) -> None:
    """Give the base model the weights that the newest entry left: those beside the log, else by replaying."""
    file = log.folder.parent / WEIGHTS
    if file.is_file():
        restore(model, {name: value for name, value in load_file(file).items() if name in log.base.weights})
        log.check_weights(model)
    elif replay(log, model).exact is False:
        raise StateError(
            f"{file} is not there, and here the edits cannot be made again to the same bits; replay the log first, "
            "into a folder of its own, or work where the run was made"
        )
