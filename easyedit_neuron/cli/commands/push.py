"""Upload an export to the Hugging Face Hub, into a private repository unless --public."""

import argparse

from ...export.push import push
from ..output import show


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="DIR", help="what export wrote")
    parser.add_argument("repo", metavar="REPO", help="organisation/name, or a name under your own account")
    parser.add_argument("--public", action="store_true", help="everyone may read it")


def run(args: argparse.Namespace) -> None:
    show(f"{push(args.folder, args.repo, args.public)}\n")
