"""``easyedit-neuron import FILE_OR_DIR --model BASE --out DIR``"""

from __future__ import annotations

import argparse
from pathlib import Path

from ...export import import_edits, read_about
from ...export.provenance import free
from ..output import show
from .common import add_model_arguments, load_base
from .export import count_edits

DESCRIPTION = (
    """Put an exported adapter or sparse file into its base model and write the edited checkpoint."""
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("path", metavar="FILE_OR_DIR", help="what export wrote with --to peft or --to sparse")
    parser.add_argument("--out", metavar="DIR", required=True, help="folder to create")
    parser.add_argument(
        "--take-off", action="store_true", help="sparse: the model has these edits, write it without them"
    )
    add_model_arguments(parser, "the one that the export names")


def run(args: argparse.Namespace) -> None:
    """Write the checkpoint."""
    free(Path(args.out))
    _, about = read_about(args.path)
    base = about["base"]
    model, tok = load_base(args.model or base["name"], args.device, {base["dtype"]})
    imported = import_edits(args.path, model, tok, args.out, take_off=args.take_off)
    action = "taken off" if args.take_off else "put in"
    show(f"{count_edits(len(about['edits']))} {action}: {imported.folder} ({imported.size:,} bytes)\n")
