"""Compare two runs, or two moments of one (FOLDER@17 is the state after entry 17): which edits
they have, which weights they change, and how far apart these are."""

import argparse
import json
from pathlib import Path

from ...editlog import EditLog, diff
from ..output import show
from .common import aligned, open_log


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", metavar="A[@N]", help="folder of a run, or of its log")
    parser.add_argument("b", metavar="B[@N]", help="the other one")
    parser.add_argument("--json", action="store_true", help="write JSON")


def run(args: argparse.Namespace) -> None:
    (log_a, upto_a), (log_b, upto_b) = _log_and_entry(args.a), _log_and_entry(args.b)
    result = diff(log_a, log_b, upto_a, upto_b)
    if args.json:
        show(json.dumps(vars(result)) + "\n")
        return
    rows = [("parameter", "|A|", "|B|", "|A - B|", "cosine", "neurons A", "B", "both")]
    for name, values in result.parameters.items():
        norms = (f"{values[key]:.4g}" for key in ("norm_a", "norm_b", "norm"))
        cosine = "-" if values["cosine"] is None else f"{values['cosine']:.4f}"
        neurons = (str(values[f"neurons_{key}"]) for key in ("a", "b", "both"))
        rows.append((name, *norms, cosine, *neurons))
    only = f"only in A: {_numbers(result.only_a)}; only in B: {_numbers(result.only_b)}"
    text = f"edits in both: {len(result.both)}; {only}\n"
    if not result.same_base:
        text += "the base models differ: the norms below are of the changes alone\n"
    show(f"{text}\n{aligned(rows)}\n")


def _log_and_entry(text: str) -> tuple[EditLog, int | None]:
    folder, at, number = text.rpartition("@")
    if not at or not number.isdecimal() or Path(text).exists():
        return open_log(text), None
    return open_log(folder), int(number)


def _numbers(ids: list[int]) -> str:
    if not ids:
        return "none"
    return f"{len(ids)} ({', '.join(map(str, ids[:10]))}{', ...' if len(ids) > 10 else ''})"
