"""The skeleton of the studies: a command that measures, and writes tables, plots and a page."""

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
from ..arch.load_model import load_model
from ..errors import NeuronEditError
from ..registry import get_method
from ..report import figures
from .output import Result, write_result

BAD_INPUT = 2


@dataclass(frozen=True)
class Study:
    """A study as a command: its name, the text of ``--help``, its own arguments, and the measurement.

    ``measure`` loads, measures and describes tables and plots; it raises ``NeuronEditError`` for wrong input.
    """

    name: str
    description: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    measure: Callable[[argparse.Namespace], Result]

    def main(self, argv: Sequence[str] | None = None) -> int:
        """Run the study and print the paths of its files; 0, or 2 and one line on stderr for wrong input."""
        program = f"easyedit_neuron.studies.{self.name}"
        parser = argparse.ArgumentParser(prog=f"python -m {program}", description=self.description)
        parser.add_argument("--out", type=Path, metavar="FOLDER", help="folder of the tables, plots and page")
        self.add_arguments(parser)
        args = parser.parse_args(argv)
        args.words = sys.argv[1:] if argv is None else list(argv)
        logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(message)s")
        try:
            figures.require()  # before the work is done
            result = self.measure(args)
            paths = write_result(result, args.out or result.folder or Path(self.name))
        except NeuronEditError as problem:
            sys.stderr.write(f"{program}: error: {' '.join(str(problem).split())}\n")
            return BAD_INPUT
        sys.stdout.write("".join(f"{path}\n" for path in paths))
        return 0


@dataclass(frozen=True)
class StudiedModel:
    """The model that a study looks at, with tokenizer and view."""

    model: Any
    tok: Any
    view: ModelView


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add ``--model`` and ``--device``, which ``load`` reads."""
    parser.add_argument("--model", default="tiny-llama", help="folder, hub name or name of a shipped model")
    parser.add_argument("--device", help="cpu, cuda:0, ...; default: the first GPU, or the CPU")


def add_data(parser: argparse.ArgumentParser, edits: int, with_all: bool = False) -> None:
    """Add ``--data`` and ``--edits``, which is None for ``all`` where that may be said."""
    parser.add_argument("--data", default="tiny-world", help="a data file, or tiny-world")
    help_text = f"how many of its first records ({edits}){', or all' if with_all else ''}"
    kind = positive_or_all if with_all else positive
    parser.add_argument("--edits", type=kind, default=edits, help=help_text)


def positive(text: str) -> int:
    """A whole number of at least 1, for argparse."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def positive_or_all(text: str) -> int | None:
    """``positive``, or None for ``all``."""
    return None if text == "all" else positive(text)


def load(args: argparse.Namespace) -> StudiedModel:
    """Load the model that ``--model`` and ``--device`` name; ``NeuronEditError`` where that fails."""
    model, tok, _ = load_model(SimpleNamespace(model_name=args.model, device=args.device))
    return StudiedModel(model, tok, ModelView.of(model))


def hparams_of(method: str, model: str, file: str | None, **fields: Any):
    """Hyperparameters from which a study takes a method's definitions, with ``fields`` set on top.

    ``file``: a path or a shipped name; None: the file shipped for the model, or else the method's defaults.
    """
    hparams_class = get_method(method).load_hparams()
    shipped = f"{method}/{model}"
    name = file or (shipped if shipped in resources.shipped_hparams() else None)
    if name is not None:
        return hparams_class.from_hparams(name).override({"model_name": model, **fields})
    if "layers" in hparams_class.__dataclass_fields__:  # required; the studies choose layers of their own
        fields = {"layers": [0], **fields}
    return hparams_class(alg_name=method, model_name=model, **fields)


def layers_of(view: ModelView, layers: Sequence[int] | None) -> list[int]:
    """These layers, ascending, or all of the model; ``ArchitectureError`` for one that does not exist."""
    for layer in layers or ():
        view.layer(layer)
    return sorted(set(layers)) if layers else list(range(view.n_layers))
