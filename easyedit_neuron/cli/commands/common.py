"""What the subcommands share: where a log is, and the model that it is of."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from transformers.utils import logging as transformers_logging

from ...errors import HparamsError, NeuronEditError, StateError
from ...host.load_model import load_model


def log_folder(path: str | Path) -> Path:
    """The log that a folder is, or that the run in it has written.

    Raises:
        StateError: neither.
    """
    folder = Path(path).expanduser()
    found = (
        [folder]
        if (folder / "log.json").is_file()
        else sorted(file.parent for file in folder.glob("*/log.json"))
    )
    if len(found) == 1:
        return found[0]
    if not folder.is_dir():
        raise StateError(f"{path}: there is no such folder; name that of a run or of a log")
    raise StateError(
        f"{path}: "
        + (
            "holds several logs, name one of them: " + ", ".join(log.name for log in found)
            if found
            else "holds no log of edits (log.json)"
        )
    )


def load_base(name: str, device: str, dtypes: Iterable[str]) -> tuple[torch.nn.Module, Any]:
    """Model and tokenizer of a name, in the dtype of the weights that were edited.

    Args:
        name: folder, hub name, or name of the shipped model.
        device: as in the hyperparameters.
        dtypes: of the edited weights, ``"float32"``, ``"bfloat16"`` or ``"float16"``.

    Raises:
        NeuronEditError: no such model or device, or the dtypes are not one of these.
    """
    dtypes = sorted(set(dtypes))
    if len(dtypes) > 1 or dtypes and dtypes[0] not in ("float32", "bfloat16", "float16"):
        raise NeuronEditError(
            f"the edited weights are {' and '.join(dtypes)}; the command loads models in one of float32, "
            f"bfloat16 and "
            "float16"
        )
    if name.startswith(("/", "./", "../", "~")):
        if not Path(name).expanduser().is_dir():
            raise HparamsError(f"there is no folder {name!r}; --model names the base model")
        name = str(Path(name).expanduser())
    transformers_logging.disable_progress_bar()
    try:
        model, tok, _ = load_model(
            SimpleNamespace(
                model_name=name, device=device, fp16=dtypes == ["float16"], bf16=dtypes == ["bfloat16"]
            )
        )
    finally:
        transformers_logging.enable_progress_bar()
    return model, tok


def chosen(ids: list[int], wanted: str | None, option: str = "--edits") -> list[int]:
    """The numbers that ``3,5-9`` names, among those that there are; a range takes what lies in it.

    Raises:
        NeuronEditError: not such a list, or a number that is not there.
    """
    if wanted is None:
        return ids
    found: set[int] = set()
    for part in wanted.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or dash and not last.isdigit():
            raise NeuronEditError(
                f"{option} {wanted}: {part.strip()!r} is no number or range; write them as in 3,5-9"
            )
        within = [number for number in ids if int(first) <= number <= int(last or first)]
        if not within:
            there = (
                f"there are {ids[0]} to {ids[-1]}, those that were taken back left out"
                if ids
                else "the log holds none"
            )
            raise NeuronEditError(f"{option} {wanted}: no edit {part.strip()} is in the weights; {there}")
        found.update(within)
    return sorted(found)


def add_model(parser: argparse.ArgumentParser, text: str) -> None:
    """``--model`` and ``--device``."""
    parser.add_argument("--model", metavar="BASE", help=f"{text}: folder, hub name or tiny-llama")
    parser.add_argument("--device", default="cpu", help="where to compute (default: cpu)")
