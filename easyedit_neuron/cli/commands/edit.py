"""Edit one fact by hand: easyedit-neuron edit "The capital of France is" --subject France --target Rome.
Prints what the model said before and says now, and keeps the edit in a log, which ask, undo, log and export
read. The next edit with the same log is made on top of it."""

import argparse
from collections.abc import Iterable

from ...report.sentences import open_ended, spoken
from ...serving.edited_model import Asked
from ..output import show
from .editing import add_editing, edited_model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prompt", metavar="PROMPT", help="text that the new object continues")
    parser.add_argument("--subject", required=True, help="subject, spelled as in the prompt")
    parser.add_argument("--target", required=True, help="the new object")
    parser.add_argument("--rephrase", action="append", default=[], metavar="PROMPT", help="ask this too")
    parser.add_argument(
        "--neighbour",
        action="append",
        default=[],
        metavar="PROMPT",
        help="ask this too; it should not change",
    )
    add_editing(parser)


def run(args: argparse.Namespace) -> None:
    with edited_model(args) as edited:
        change = edited.edit(args.prompt, args.subject, args.target, args.rephrase, args.neighbour)
        number, method = change.number, edited.method.name
        form = "sparse --out shared-edits" if edited.log[number].adds_neurons else "peft --out adapter"
    show(
        f"\nEdit {number} with {method}, kept in {args.log}: {args.prompt} -> {args.target}\n\n"
        + before_and_after(change.asked)
        + f'\nask more:   easyedit-neuron ask {args.log} "{args.prompt}"\n'
        + f"take it back: easyedit-neuron undo {args.log} {number}\n"
        + f"share it:   easyedit-neuron export {args.log} --to {form}\n"
    )


def before_and_after(asked: Iterable[Asked]) -> str:
    """A block of three lines for each prompt."""
    return "".join(
        f"{each.kind:<10} {open_ended(each.prompt)}\n"
        f"    before ... {spoken(each.before)}\n    now    ... {spoken(each.after)}\n"
        for each in asked
    )
