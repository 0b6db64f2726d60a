"""``easyedit-neuron squash FOLDER --out DIR [--upto N]``"""

from __future__ import annotations

import argparse
from pathlib import Path

from ...editlog import replay, squash
from ..output import show
from .common import (
    FOLDER_HELP,
    add_out_argument,
    describe_output,
    load_base_for_output,
    open_log,
    save_weights,
    write_output,
)

DESCRIPTION = """Make one edit of all edits of a run: a log whose only entry is the total change of every weight and
names the edits in it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("folder", metavar="FOLDER", help=FOLDER_HELP)
    parser.add_argument(
        "--upto", type=int, metavar="N", help="the edits that are in the weights after entry N"
    )
    add_out_argument(parser)


def run(args: argparse.Namespace) -> None:
    """Squash the edits and write the result."""
    log = open_log(args.folder)
    ids = log.ids_at(args.upto)
    model = load_base_for_output(log, args)

    def fill(part: Path) -> None:
        squashed = squash(log, part / "log", model, args.upto)
        replay(squashed, model)
        save_weights(squashed, model, part)

    write_output(args.out, fill)
    before, after = sum(log.line(number)["bytes"] for number in ids), open_log(args.out).entries[0]["bytes"]
    show(f"{len(ids)} edits as one: {after:,} bytes, before {before:,}\n{describe_output(args.out)}")
