"""What the commands share that edit a model by hand (edit, serve, demo): their arguments, and the model with
the edits of a log."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ... import resources
from ...arch.load_model import load_model
from ...editlog import EditLog, replay
from ...errors import StateError
from ...hyperparameters.base import HyperParams, find_hparams, read_hparams
from ...registry import MethodSpec, get_method
from ...serving.edited_model import EditedModel
from ...utils.io import held
from ..load import load_quietly
from ..settings import shipped_hparams_file
from .common import DEFAULT_LOG, DEFAULT_METHODS, DEFAULT_MODEL, WEIGHTS, add_chat, load_base_of

LOG_OF_EDITS = "this log of edits"


def add_editing(parser: argparse.ArgumentParser) -> None:
    """Arguments that say which model is edited, how, and where its edits are kept."""
    default = f"default: that of --hparams, or {' or else '.join(DEFAULT_METHODS)}"
    parser.add_argument("--method", help=default)
    parser.add_argument("--model", default=None, help=f"name, folder or GGUF file; default: {DEFAULT_MODEL}")
    parser.add_argument(
        "--hparams", metavar="FILE", help="hyperparameters; default: those shipped for the model"
    )
    add_chat(parser, "edit and ask inside the model's chat template; default: as the hyperparameters say")
    parser.add_argument("--log", default=DEFAULT_LOG, metavar="DIR", help=f"default: {DEFAULT_LOG}")
    parser.add_argument("--device", default="cpu", help="device to compute on (default: cpu)")


@contextmanager
def edited_model(args: argparse.Namespace) -> Iterator[EditedModel]:
    """The model with the edits of ``--log``, which no other process can change inside the block.

    ``NeuronEditError`` where the log is a run's, is held, or cannot be made again here to the same bits.
    """
    folder = Path(args.log).expanduser()
    if (folder.parent / WEIGHTS).is_file() and (folder / "log.json").is_file():
        problem = f"is the log of a run, whose {WEIGHTS} would not belong to it any more"
        raise StateError(f"{args.log}: {problem}; copy the folder, and name the copy")
    with held(folder, LOG_OF_EDITS):
        log = EditLog(folder)
        method, hparams = _method_and_hparams(args, log)
        model, tok = _load(args, hparams, log)
        yield EditedModel(model, tok, log, method, hparams)


def _method_and_hparams(args: argparse.Namespace, log: EditLog) -> tuple[MethodSpec, HyperParams]:
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
    if log.entries and replay(log, model, tok).exact is False and None not in log.weights_at().values():
        problem = "was written on another kind of machine: here its edits have other bits"
        remedy = f"easyedit-neuron replay {args.log} --out DIR, then --log with a copy of DIR/log"
        raise StateError(f"{args.log}: {problem}; {remedy}")
    return model, tok
