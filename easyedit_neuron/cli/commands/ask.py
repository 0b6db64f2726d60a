"""Ask a model with the edits of a log: what it said before them and says now, and, where edits are neurons
(Lasting), which of them answered. Prompts are asked as the newest edit was made: inside the chat template or
not."""

import argparse

from ...arch.chat import chat_tokenizer
from ...editlog import replay
from ...evaluation.answers import ANSWER_TOKENS, answers
from ...models.lasting.firing import firings
from ...serving.edited_model import Asked
from ..output import show
from .common import add_chat, add_folder, add_model, load_base_of, made_in_chat, open_log
from .edit import before_and_after

MOST_NEURONS = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_folder(parser)
    parser.add_argument("prompts", metavar="PROMPT", nargs="+", help="text to continue")
    add_chat(parser, "ask inside the chat template, or not; default: as the newest edit was made")
    parser.add_argument(
        "--tokens", type=int, default=ANSWER_TOKENS, help=f"longest answer in tokens ({ANSWER_TOKENS})"
    )
    add_model(parser)


def run(args: argparse.Namespace) -> None:
    log = open_log(args.folder)
    model, tok = load_base_of(log, args)
    if made_in_chat(log) if args.chat is None else args.chat:
        tok = chat_tokenizer(tok)
    before = answers(model, tok, args.prompts, args.tokens)
    replay(log, model)
    after = answers(model, tok, args.prompts, args.tokens)
    lasting = [number for number in log.ids if log.edit_entry(number)["method"] == "Lasting"]
    fired = firings(model, tok, {number: log[number] for number in lasting}, args.prompts)
    shown = f"{len(log)} edits\n\n"
    for prompt, old, new, neurons in zip(args.prompts, before, after, fired):
        shown += before_and_after([Asked("asked", prompt, old, new)])
        for neuron in neurons[:MOST_NEURONS]:
            place = f"the neuron of edit {neuron.edit} ({neuron.subject}) responds at {neuron.text!r}"
            shown += f"    {place}: {neuron.share:.2f}\n"
    show(shown)
