"""What the subcommands share: the log of a run, its base model, and the folder for the result."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from ...editlog import EditLog
from ...errors import NeuronEditError, StateError
from ...export.provenance import free
from ...host.load_model import load_model
from ...utils.io import save_tensors, write_folder
from ..load import load_quietly

FOLDER_HELP = "folder of a run, or of its log"
WEIGHTS = "weights.safetensors"


def open_log(path: str | Path) -> EditLog:
    """The log in a folder, which is that of the log or of a run.

    Raises:
        StateError: the folder holds no log, or several.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise StateError(f"{path}: there is no such folder; name that of a run or of a log")
    logs = [folder] if (folder / "log.json").is_file() else []
    logs = logs or sorted(file.parent for file in folder.glob("*/log.json"))
    if not logs:
        raise StateError(f"{path}: holds no log of edits (log.json)")
    if len(logs) > 1:
        raise StateError(
            f"{path}: holds several logs, name one of them: {', '.join(log.name for log in logs)}"
        )
    return EditLog(logs[0])


def load_base(name: str, device: str, dtypes: Iterable[str]) -> tuple[torch.nn.Module, Any]:
    """Load model and tokenizer in the dtype of the weights that were edited.

    Args:
        name: folder, hub name, or name of the shipped model.
        device: as in the hyperparameters.
        dtypes: of the edited weights, ``"float32"``, ``"bfloat16"`` or ``"float16"``.

    Raises:
        NeuronEditError: no such model or device, or the dtypes are not one of these.
    """
    dtypes = sorted(set(dtypes))
    if len(dtypes) > 1 or not set(dtypes) <= {"float32", "bfloat16", "float16"}:
        raise NeuronEditError(
            f"the edited weights are {' and '.join(dtypes)}; the command loads models in one of float32, "
            "bfloat16 and float16"
        )
    path = str(Path(name).expanduser()) if name.startswith("~") else name
    half = {"fp16": dtypes == ["float16"], "bf16": dtypes == ["bfloat16"]}
    hparams = SimpleNamespace(model_name=path, device=device, **half)
    return load_quietly(name, "--model", lambda: load_model(hparams))[:2]


def load_base_of(log: EditLog, args: argparse.Namespace) -> tuple[torch.nn.Module, Any]:
    """Load the base model of a log and its tokenizer; ``StateError`` if it is not that model."""
    base = log.base
    dtypes = {weight["dtype"] for weight in base.weights.values()}
    model, tok = load_base(args.model or base.name, args.device, dtypes)
    base.check(model)
    return model, tok


def load_base_for_output(log: EditLog, args: argparse.Namespace) -> torch.nn.Module:
    """``load_base_of``, after refusing a folder ``--out`` that exists."""
    free(Path(args.out))
    return load_base_of(log, args)[0]


def select_edits(ids: list[int], selection: str | None, option: str = "--edits") -> list[int]:
    """The numbers in ``ids`` that a selection such as ``3,5-9`` names; None selects all.

    Raises:
        NeuronEditError: not a list of numbers and ranges, or one that selects nothing.
    """
    if selection is None:
        return ids
    selected: set[int] = set()
    for part in selection.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise NeuronEditError(
                f"{option} {selection}: {part.strip()!r} is no number or range; write them as in 3,5-9"
            )
        matching = [number for number in ids if int(first) <= number <= int(last or first)]
        if not matching:
            present = "the log holds none"
            if ids:
                present = f"there are {ids[0]} to {ids[-1]}, those that were taken back left out"
            raise NeuronEditError(
                f"{option} {selection}: no edit {part.strip()} is in the weights; {present}"
            )
        selected.update(matching)
    return sorted(selected)


def write_output(out: str, fill: Callable[[Path], None]) -> None:
    """Create the folder ``--out`` with what ``fill`` writes into it, completely or not at all."""
    folder = Path(out).expanduser()
    folder.parent.mkdir(parents=True, exist_ok=True)
    write_folder(folder, fill)


def save_weights(log: EditLog, model: torch.nn.Module, folder: Path) -> None:
    """Write the parameters that a log edits to ``weights.safetensors`` in a folder."""
    weights = {name: model.get_parameter(name) for name in log.base.weights}
    save_tensors(folder / WEIGHTS, weights, {"base": log.base.name})


def describe_output(out: str) -> str:
    """A line about the weights and the log that were written to ``--out``."""
    log = open_log(out)
    weights = f"{Path(out) / WEIGHTS}: {len(log.base.weights)} weights with {len(log)} edits"
    return f"{weights}; {log.folder}: {len(log.entries)} entries\n"


def describe_request(entry: dict[str, Any]) -> str:
    """The first request of a log entry, shortened, and how many more there are."""
    first, *more = entry["requests"]
    text = f"{first['prompt']} -> {first['target_new']}"
    text = text if len(text) <= 60 else text[:57] + "..."
    return text + (f" (and {len(more)} more)" if more else "")


def aligned(rows: list[tuple[str, ...]]) -> str:
    """A table with columns of equal width."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows
    )


def add_out_argument(parser: argparse.ArgumentParser) -> None:
    """``--out`` of the commands that write edited weights with their log, ``--model`` and ``--device``."""
    parser.add_argument(
        "--out", metavar="DIR", required=True, help=f"folder to create; gets {WEIGHTS} and log/"
    )
    add_model_arguments(parser, "the one that the log names")


def add_model_arguments(parser: argparse.ArgumentParser, default: str) -> None:
    """``--model`` and ``--device``."""
    parser.add_argument(
        "--model", metavar="BASE", help=f"base model: folder, hub name or tiny-llama (default: {default})"
    )
    parser.add_argument("--device", default="cpu", help="device to compute on (default: cpu)")
