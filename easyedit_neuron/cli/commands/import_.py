"""Put an exported adapter or sparse file into its base model and write the edited checkpoint."""

import argparse
from pathlib import Path

from ...export import import_edits, read_side_file
from ...export.side_file import refuse_existing
from ...utils.shown import count_edits
from ..output import show
from .common import add_out_and_model, load_base


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="FILE_OR_DIR", help="what export wrote with --to peft or --to sparse")
    help_text = "sparse: the model has these edits, write it without them"
    parser.add_argument("--take-off", action="store_true", help=help_text)
    add_out_and_model(parser, "gets the checkpoint")


def run(args: argparse.Namespace) -> None:
    refuse_existing(Path(args.out))
    _, info = read_side_file(args.path)
    base = info["base"]
    model, tok = load_base(args.model or base["name"], args.device, {base["dtype"]})
    imported = import_edits(args.path, model, tok, args.out, take_off=args.take_off)
    action = "taken off" if args.take_off else "put in"
    show(f"{count_edits(len(info['edits']))} {action}: {imported.folder} ({imported.size:,} bytes)\n")
