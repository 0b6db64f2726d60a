"""Take single edits out of the weights of a run. FOLDER stays as it is; DIR gets the weights
without the edits, and the log with an entry for each of them."""

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file

from ...editlog import EditLog, replay, undo
from ...edits.write import restore
from ...errors import StateError
from ..output import show
from .common import WEIGHTS, add_folder, add_out_and_model, describe_request, open_log, write_edited


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_folder(parser)
    help_text = "edit, as 'easyedit-neuron log FOLDER' numbers them"
    parser.add_argument("ids", metavar="ID", nargs="+", type=int, help=help_text)
    add_out_and_model(parser)


def run(args: argparse.Namespace) -> None:
    log = open_log(args.folder)
    # Fails for an unknown edit before a model is loaded.
    entries = [log.edit_entry(number) for number in args.ids]

    def edit(model: torch.nn.Module, folder: Path) -> EditLog:
        _restore_newest_weights(log, model)
        copy = log.copy(folder)
        for number in args.ids:
            undo(model, copy, number)
        return copy

    written = write_edited(args, log, edit)
    lines = [f"edit {entry['id']} taken out: {describe_request(entry)}\n" for entry in entries]
    show("".join(lines) + written)


def _restore_newest_weights(log: EditLog, model: torch.nn.Module) -> None:
    """Give the base model the weights that the newest entry left: those beside the log, else by replaying."""
    file = log.folder.parent / WEIGHTS
    if file.is_file():
        restore(model, {name: value for name, value in load_file(file).items() if name in log.base.weights})
        log.check_weights(model)
    elif replay(log, model).exact is False:
        problem = f"{file} is not there, and here the edits cannot be made again to the same bits"
        raise StateError(f"{problem}; replay the log into another folder, or work where the run was made")
