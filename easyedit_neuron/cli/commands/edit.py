"""Edit one fact by hand: easyedit-neuron edit "The capital of France is" --subject France --target Rome.
Prints what the model said before and says now, and keeps the edit in a log, which ask, undo, log and export
read. The next edit with the same log is made on top of it."""

import argparse
from typing import Any

import torch

from ... import resources
from ...arch.chat import prompt_tokenizer
from ...arch.load_model import load_model
from ...data.related import related_prompts
from ...editlog import EditLog, recording, replay
from ...errors import NeuronEditError
from ...evaluation.answers import answers
from ...hyperparameters.base import HyperParams, find_hparams, read_hparams
from ...registry import MethodSpec, get_method
from ...report.sentences import open_ended, spoken
from ..load import load_quietly
from ..output import show
from ..settings import shipped_hparams_file
from .common import DEFAULT_LOG, DEFAULT_METHODS, DEFAULT_MODEL, add_chat, load_base_of

MOST_SHOWN = 3


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
    parser.add_argument(
        "--method", help=f"default: that of --hparams, or {' or else '.join(DEFAULT_METHODS)}"
    )
    parser.add_argument("--model", default=None, help=f"name, folder or GGUF file; default: {DEFAULT_MODEL}")
    parser.add_argument(
        "--hparams", metavar="FILE", help="hyperparameters; default: those shipped for the model"
    )
    add_chat(parser, "edit and ask inside the model's chat template; default: as the hyperparameters say")
    parser.add_argument("--log", default=DEFAULT_LOG, metavar="DIR", help=f"default: {DEFAULT_LOG}")
    parser.add_argument("--device", default="cpu", help="device to compute on (default: cpu)")


def run(args: argparse.Namespace) -> None:
    log = EditLog(args.log)
    method, hparams = _hparams(args, log)
    model, tok = _load(args, hparams, log)
    request = {"prompt": args.prompt, "subject": args.subject, "target_new": args.target}
    rephrasings, neighbours = _related(args)
    prompts = [args.prompt, *rephrasings, *neighbours]
    prompt_tok = prompt_tokenizer(tok, hparams)
    before = answers(model, prompt_tok, prompts)
    earlier = len(log.entries)
    with recording(model, log):
        method.load_apply()(model, tok, [request], hparams)
    if len(log.entries) == earlier:
        reason = f"{method.name} gives no record of its edits, so that none can be kept"
        raise NeuronEditError(f"{reason}: --method names another one, such as {DEFAULT_METHODS[-1]}")
    after = answers(model, prompt_tok, prompts)
    kinds = ["edited"] + ["rephrased"] * len(rephrasings) + ["neighbour"] * len(neighbours)
    number = log.ids[-1]
    form = "sparse --out shared-edits" if log[number].adds_neurons else "peft --out adapter"
    show(
        f"\nEdit {number} with {method.name}, kept in {args.log}: {args.prompt} -> {args.target}\n\n"
        + before_and_after(kinds, prompts, before, after)
        + f'\nask more:   easyedit-neuron ask {args.log} "{args.prompt}"\n'
        + f"take it back: easyedit-neuron undo {args.log} {number}\n"
        + f"share it:   easyedit-neuron export {args.log} --to {form}\n"
    )


def before_and_after(kinds: list[str], prompts: list[str], before: list[str], after: list[str]) -> str:
    """A block of three lines for each prompt."""
    return "".join(
        f"{kind:<10} {open_ended(prompt)}\n    before ... {spoken(old)}\n    now    ... {spoken(new)}\n"
        for kind, prompt, old, new in zip(kinds, prompts, before, after)
    )


def _hparams(args: argparse.Namespace, log: EditLog) -> tuple[MethodSpec, HyperParams]:
    """Method and hyperparameters for the model: the user's file, or the shipped one."""
    model = args.model or (log.base.name if log.entries else DEFAULT_MODEL)
    if args.hparams is not None:
        path = find_hparams(args.hparams)
        spec = get_method(args.method or read_hparams(path).get("alg_name") or DEFAULT_METHODS[0])
    else:
        shipped = (name for name in DEFAULT_METHODS if f"{name}/{model}" in resources.shipped_hparams())
        spec = get_method(args.method or next(shipped, DEFAULT_METHODS[-1]))
        remedy = "--hparams FILE reads your own, and easyedit-neuron tune writes one"
        path = shipped_hparams_file(spec, model, remedy)
    values: dict[str, Any] = read_hparams(path) | {"device": args.device, "batch_size": 1}
    if args.chat is not None:
        values["use_chat_template"] = args.chat
    if args.model is not None or args.hparams is None:
        values["model_name"] = model
    return spec, spec.load_hparams().from_dict(values, source=path)


def _load(args: argparse.Namespace, hparams: HyperParams, log: EditLog) -> tuple[torch.nn.Module, Any]:
    """The model with the edits of the log."""
    if log.entries and not hparams.load_in_4bit:
        model, tok = load_base_of(log, args)
    else:
        model, tok = load_quietly(hparams.model_name, "--model", lambda: load_model(hparams))[:2]
    if log.entries:
        replay(log, model, tok)
    return model, tok


def _related(args: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Rephrasings and neighbours to show: the user's, or those of a relation that real-world has."""
    rephrasings, neighbours = related_prompts(args.prompt, args.subject)
    return args.rephrase or rephrasings[:MOST_SHOWN], args.neighbour or neighbours[:MOST_SHOWN]
