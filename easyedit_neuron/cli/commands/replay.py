"""Make the edits of a run again on the base model. All of them give the weights of the run, bit
for bit on the same kind of machine; a selection gives the weights of these edits alone."""

import argparse
from pathlib import Path

import torch

from ...editlog import EditLog, replay
from ..output import show
from .common import add_folder, add_out_and_model, open_log, select_edits, write_edited

_EXACT = {
    True: "the weights are the log's, bit for bit",
    False: "the weights differ from the log's by rounding",
    None: "a selection: the weights are of these edits alone",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_folder(parser)
    parser.add_argument("--upto", type=int, metavar="N", help="stop after entry N")
    parser.add_argument("--only", metavar="3,5-9", help="only these edits")
    parser.add_argument("--without", metavar="3,5-9", help="all edits but these")
    add_out_and_model(parser)


def run(args: argparse.Namespace) -> None:
    log = open_log(args.folder)
    ids = log.ids_at(args.upto)
    only = None if args.only is None else select_edits(ids, args.only, "--only")
    without = [] if args.without is None else select_edits(ids, args.without, "--without")
    result = None

    def edit(model: torch.nn.Module, folder: Path) -> EditLog:
        nonlocal result
        is_selection = only is not None or bool(without)
        selected = EditLog(folder, log.base.name, log.base.fingerprint) if is_selection else None
        result = replay(log, model, upto=args.upto, only=only, without=without, into=selected)
        return log.copy(folder, args.upto) if selected is None else selected

    written = write_edited(args, log, edit)
    base = args.model or log.base.name
    show(f"{len(result.ids)} edits on {base}; {_EXACT[result.exact]}\n{written}")
