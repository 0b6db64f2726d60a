"""Find settings for a model: at which layers its facts can be edited (z* is put in at each depth, and the
keys are compared), then a small search over step size, clamp, ridge and threshold, within --minutes. Writes a
commented YAML file, the tables of the search and a picture."""

import argparse
import time
from pathlib import Path
from typing import Any

from ... import data, resources
from ...arch.load_model import load_model
from ...errors import NeuronEditError
from ...hyperparameters.base import HyperParams, find_hparams, read_hparams
from ...lifelong import EASYEDIT_PREFIX
from ...locate_then_edit.hparams import PathHyperParams
from ...locate_then_edit.target_hparams import TargetHyperParams
from ...registry import get_method
from ...report import figures
from ...studies.untouched import EasyEditUntouched, Untouched
from ...tuning.result import write_picture, write_tables, yaml_text
from ...tuning.search import Trial, changed
from ...tuning.tune import find_start, given_start, search_settings
from ...utils.io import write_text
from ...utils.lists import evenly
from ..load import load_quietly
from ..output import show

MOST_TEXTS = 12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="name, folder or GGUF file")
    parser.add_argument(
        "--method", default="AlphaEdit", help="default: AlphaEdit; EasyEdit's own as EasyEdit:GRACE"
    )
    parser.add_argument("--data", default="real-world", help="a data file; default: real-world")
    parser.add_argument(
        "--part", default="choose", choices=("all", "choose", "report"), help="of the data; default: choose"
    )
    parser.add_argument("--edits", type=int, default=50, help="sequential edits of a trial (50)")
    parser.add_argument("--batch-size", type=int, default=10, help="edits that are made together (10)")
    parser.add_argument("--minutes", type=float, default=30.0, help="time for everything (30)")
    parser.add_argument("--start", metavar="FILE", help="hyperparameters to begin with, layers included")
    parser.add_argument("--text", default="real-world", help="text for perplexity, a passage a line")
    parser.add_argument("--out", metavar="DIR", help="folder for everything; default: tune-MODEL-METHOD")
    parser.add_argument("--device", default="cpu", help="device to compute on (default: cpu)")


def run(args: argparse.Namespace) -> None:
    begin = time.monotonic()
    figures.require()
    requests = data.load(args.data, size=args.edits, rephrasings="all", part=args.part)
    requests = [request | {"portability": {}} for request in requests]  # not part of the score
    texts = evenly(data.text(args.text, "heldout"), MOST_TEXTS)
    subject, hparams = _subject(args)
    name = resources.model_short_name(args.model)
    method = args.method.replace(":", "-")
    out = Path(args.out or f"tune-{Path(name).stem}-{method}").expanduser()

    if args.start or not isinstance(hparams, HyperParams):
        start = given_start(hparams)
    else:
        start = find_start(subject.model, subject.tok, requests, hparams)
    if start.layers:
        show(f"z*: v_lr {start.hparams.v_lr:g}, layers {start.hparams.layers}\n")

    def tell(trials: list[Trial]) -> None:
        spent = (time.monotonic() - begin) / 60
        show(f"{spent:5.1f} of {args.minutes:g} min  {_line(trials[-1])}\n")
        write_tables(out, start.rates, start.layers, trials)

    best, trials = search_settings(subject, requests, texts, start, begin + 60 * args.minutes, tell)
    if best.score == 0:
        raise NeuronEditError(f"{args.method} edits nothing on {name} under any setting that was tried")
    chosen = changed(start.hparams, best.changes | {"model_name": name, "batch_size": 1})
    file = out / f"{Path(name).stem}.yaml"
    write_text(file, yaml_text(chosen, trials, best, _header(args, best)))
    write_picture(out / "tune.png", start.layers, trials)
    show(f"{len(trials)} trials; best score {best.score:.3f}\n{file}\n{out / 'tune.png'}\n")


def _line(trial: Trial) -> str:
    shares = "  ".join(f"{key} {trial.values[key]:.3f}" for key in trial.values if key in _SHOWN)
    return f"score {trial.score:.3f}  {shares}  {trial.changes or 'start'}"


_SHOWN = ("rel", "gen", "loc", "fluent", "seconds")


def _subject(args: argparse.Namespace) -> tuple[Untouched, Any]:
    """The model to edit, and the setting to begin with."""
    if args.method.startswith(EASYEDIT_PREFIX):
        theirs = EasyEditUntouched(args.method, resources.model_short_name(args.model), args.start)
        return theirs, theirs.hparams
    hparams = _first_hparams(args)
    model, tok, _ = load_quietly(args.model, "MODEL", lambda: load_model(hparams))
    return Untouched(model, tok), hparams


def _first_hparams(args: argparse.Namespace) -> HyperParams:
    """The setting to begin with: the user's file, or the method's defaults with text that the model
    writes."""
    spec = get_method(args.method)
    hparams_class = spec.load_hparams()
    values: dict[str, Any] = {"alg_name": spec.name, "model_name": args.model, "device": args.device}
    if args.start is not None:
        path = find_hparams(args.start)
        values = read_hparams(path) | {key: values[key] for key in ("model_name", "device")}
    if issubclass(hparams_class, TargetHyperParams):
        # Short searches that may go far; lambda and threshold are in the units of this model's covariance.
        first = {"layers": [0], "v_num_grad_steps": 20, "v_weight_decay": 1e-3, "clamp_norm_factor": 4.0}
        ridge = {"mom2_update_weight": 1000.0} if issubclass(hparams_class, PathHyperParams) else {}
        values = first | ridge | values
    elif spec.name == "FT":  # its layer comes from the search
        first = {"layers": [0], "num_steps": 25, "lr": 5e-4, "objective_optimization": "target_new"}
        values = first | values
    if spec.batchable:
        values["batch_size"] = args.batch_size
    return hparams_class.from_dict(values, source=args.start)


def _header(args: argparse.Namespace, best: Trial) -> str:
    measured = ", ".join(f"{name} {best.values[name]:.3f}" for name in ("rel", "gen", "loc", "fluent"))
    return (
        f"{args.method} on {args.model}.\n"
        f"Written by: easyedit-neuron tune {args.model} --method {args.method} --data {args.data} "
        f"--part {args.part}\n"
        f"Chosen on {args.edits} sequential edits, {args.batch_size} at a time: {measured}.\n"
        "Beside a value: the score with it (harmonic mean of the four), then other values and theirs."
    )
