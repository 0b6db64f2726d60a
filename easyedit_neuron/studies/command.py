"""What the studies' commands share: arguments, the model, errors as one line, files."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from .. import resources
from ..arch import ModelView
from ..errors import NeuronEditError
from ..host.load_model import load_model
from ..registry import get_method
from .output import Result, need_plots, write_study

BAD_INPUT = 2


@dataclass(frozen=True)
class Subject:
    """The model that is looked at: model, tokenizer, view."""

    model: Any
    tok: Any
    view: ModelView


def parser(
    name: str, description: str, *, model: bool = True, data: bool = False, edits: int = 20
) -> argparse.ArgumentParser:
    """Arguments of a study: ``--out``, and where they make sense ``--model``, ``--device``, ``--data``,
    ``--edits``."""
    made = argparse.ArgumentParser(prog=f"python -m easyedit_neuron.studies.{name}", description=description)
    made.add_argument(
        "--out", type=Path, default=Path(name), metavar="FOLDER", help="of the table, the plots and the page"
    )
    if model:
        made.add_argument(
            "--model", default="tiny-llama", help="folder or hub name, or a shipped model's name"
        )
        made.add_argument("--device", help="cpu, cuda:0, ...; default: the first GPU, or the CPU")
    if data:
        made.add_argument("--data", default="tiny-world", help="a data file, or tiny-world")
        made.add_argument(
            "--edits", type=positive, default=edits, help=f"how many of its records, the first ones ({edits})"
        )
    return made


def positive(text: str) -> int:
    """A whole number of at least 1, for argparse."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def load(arguments: argparse.Namespace) -> Subject:
    """The model that ``--model`` and ``--device`` name; ``NeuronEditError`` where it cannot be."""
    model, tok, _ = load_model(SimpleNamespace(model_name=arguments.model, device=arguments.device))
    return Subject(model, tok, ModelView.of(model))


def hparams_of(method: str, model: str, given: str | None, **fields: Any):
    """Hyperparameters from which a study takes a method's definitions.

    Args:
        method: its name.
        model: as ``--model`` was given.
        given: a file, or a shipped name; None: the file that ships for the model, and where there is none the
            method's defaults.
        **fields: set on top.

    Raises:
        HparamsError: a bad file or field.
    """
    kind = get_method(method).load_hparams()
    name = given or (f"{method}/{model}" if f"{method}/{model}" in resources.shipped_hparams() else None)
    if name is not None:
        return kind.from_hparams(name).override({"model_name": model, **fields})
    needed = (
        {"layers": [0]} if "layers" in kind.__dataclass_fields__ else {}
    )  # the studies look at layers of their own choice
    return kind(alg_name=method, model_name=model, **{**needed, **fields})


def layers_of(view: ModelView, given: Sequence[int] | None) -> list[int]:
    """The layers named, or all of the model's; ``ArchitectureError`` for one that it does not have."""
    for layer in given or ():
        view.layer(layer)
    return sorted(set(given)) if given else list(range(view.n_layers))


def run(arguments: argparse.Namespace, name: str, study: Callable[[argparse.Namespace], Result]) -> int:
    """Does the study and writes its files, whose paths go to stdout; 0, or 2 and one line on stderr when the
    input is wrong."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(message)s")
    try:
        need_plots()
        written = write_study(study(arguments), arguments.out)
    except NeuronEditError as problem:
        sys.stderr.write(f"easyedit_neuron.studies.{name}: error: {' '.join(str(problem).split())}\n")
        return BAD_INPUT
    sys.stdout.write("".join(f"{path}\n" for path in written))
    return 0
