"""``easyedit-neuron replay FOLDER --out DIR [--upto N] [--only IDS] [--without IDS]``"""

from __future__ import annotations

import argparse
from pathlib import Path

from ...editlog import EditLog, replay
from ..output import show
from .common import (
    FOLDER_HELP,
    add_out_argument,
    describe_output,
    load_base_for_output,
    open_log,
    save_weights,
    select_edits,
    write_output,
)

DESCRIPTION = """Make the edits of a run again on the base model. All of them give the weights of the run, bit for
bit on the same kind of machine; a selection gives the weights of these edits alone."""

_EXACT = {
    True: "the weights are the log's, bit for bit",
    False: "the weights differ from the log's by rounding",
    None: "a selection: the weights are of these edits alone",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("folder", metavar="FOLDER", help=FOLDER_HELP)
    parser.add_argument("--upto", type=int, metavar="N", help="stop after entry N")
    parser.add_argument("--only", metavar="3,5-9", help="only these edits")
    parser.add_argument("--without", metavar="3,5-9", help="all edits but these")
    add_out_argument(parser)


def run(args: argparse.Namespace) -> None:
    """Replay the edits and write the result."""
    log = open_log(args.folder)
    ids = log.ids_at(args.upto)
    only = None if args.only is None else select_edits(ids, args.only, "--only")
    without = [] if args.without is None else select_edits(ids, args.without, "--without")
    is_selection = only is not None or bool(without)
    model = load_base_for_output(log, args)
    result = None

    def fill(part: Path) -> None:
        nonlocal result
        into = EditLog(part / "log", log.base.name, log.base.fingerprint) if is_selection else None
        result = replay(log, model, upto=args.upto, only=only, without=without, into=into)
        save_weights(log.copy(part / "log", args.upto) if into is None else into, model, part)

    write_output(args.out, fill)
    base = args.model or log.base.name
    show(f"{len(result.ids)} edits on {base}; {_EXACT[result.exact]}\n{describe_output(args.out)}")
