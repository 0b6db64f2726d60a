"""Make one edit of all edits of a run: a log with a single entry, which holds the total change
of every weight and names the edits."""

import argparse
from pathlib import Path

import torch

from ...editlog import EditLog, replay, squash
from ..output import show
from .common import add_folder, add_out_and_model, open_log, write_edited


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_folder(parser)
    parser.add_argument("--upto", type=int, metavar="N", help="the edits in the weights after entry N")
    add_out_and_model(parser)


def run(args: argparse.Namespace) -> None:
    log = open_log(args.folder)
    ids = log.ids_at(args.upto)

    def edit(model: torch.nn.Module, folder: Path) -> EditLog:
        squashed = squash(log, folder, model, args.upto)
        replay(squashed, model)
        return squashed

    written = write_edited(args, log, edit)
    before = sum(log.edit_entry(number)["bytes"] for number in ids)
    after = open_log(args.out).entries[0]["bytes"]
    show(f"{len(ids)} edits as one: {after:,} bytes, before {before:,}\n{written}")
