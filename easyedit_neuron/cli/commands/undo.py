"""Take single edits out of the weights. Of a log of edits by hand (easyedit-neuron edit): the log gets an
entry for each. Of a run: the folder stays as it is, and DIR gets the weights without the edits, and the
log."""

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file

from ...editlog import EditLog, replay, undo
from ...edits.write import restore
from ...errors import NeuronEditError, StateError
from ...utils.io import held
from ..output import show
from .common import WEIGHTS, add_folder, add_model, describe_request, load_base_of, open_log, write_edited
from .editing import LOG_OF_EDITS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_folder(parser)
    help_text = "edit, as 'easyedit-neuron log FOLDER' numbers them"
    parser.add_argument("ids", metavar="ID", nargs="+", type=int, help=help_text)
    parser.add_argument("--out", metavar="DIR", help=f"folder to create, of a run; gets {WEIGHTS} and log/")
    add_model(parser)


def run(args: argparse.Namespace) -> None:
    log = open_log(args.folder)
    # Fails for an unknown edit before a model is loaded.
    entries = [log.edit_entry(number) for number in args.ids]

    described = [f"edit {entry['id']} taken out: {describe_request(entry)}\n" for entry in entries]
    if args.out is None:
        _undo_in_log(args, log)
        show("".join(described))
        return

    def edit(model: torch.nn.Module, folder: Path) -> EditLog:
        _restore_newest_weights(log, model)
        copy = log.copy(folder)
        for number in args.ids:
            undo(model, copy, number)
        return copy

    written = write_edited(args, log, edit)
    show("".join(described) + written)


def _undo_in_log(args: argparse.Namespace, log: EditLog) -> None:
    """Note in the log itself that edits were taken out; for a log that has no weights beside it."""
    if log.folder != Path(args.folder).expanduser() or (log.folder.parent / WEIGHTS).is_file():
        raise NeuronEditError("--out DIR is needed: the weights of a run stay as they are")
    with held(log.folder, LOG_OF_EDITS):
        log = EditLog(log.folder)  # as it is now that no other process writes it
        model, _ = load_base_of(log, args)
        _restore_newest_weights(log, model)
        for number in args.ids:
            undo(model, log, number)


def _restore_newest_weights(log: EditLog, model: torch.nn.Module) -> None:
    """Give the base model the weights that the newest entry left: those beside the log, else by replaying."""
    file = log.folder.parent / WEIGHTS
    if file.is_file():
        restore(model, {name: value for name, value in load_file(file).items() if name in log.base.weights})
        log.check_weights(model)
    elif replay(log, model).exact is False:
        problem = f"{file} is not there, and here the edits cannot be made again to the same bits"
        raise StateError(f"{problem}; replay the log into another folder, or work where the run was made")
