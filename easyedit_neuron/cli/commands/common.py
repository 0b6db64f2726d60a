"""What the subcommands share: the log of a run, its base model, and the folder for the result."""

import argparse
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from ...arch.load_model import load_model
from ...editlog import EditLog
from ...errors import NeuronEditError, StateError
from ...export.side_file import refuse_existing
from ...utils.io import save_tensors, write_folder
from ..load import load_quietly

WEIGHTS = "weights.safetensors"
DEFAULT_LOG = "easyedit-neuron-edits"
DEFAULT_MODEL = "smollm2-135m-instruct"
DEFAULT_METHODS = ("Lasting", "AlphaEdit")
"""Of edits by hand: the first that has settings for the model."""
DTYPES = {"float32", "bfloat16", "float16"}


def open_log(path: str | Path) -> EditLog:
    """The log in a folder, the log's own or that of a run; ``StateError`` if it holds none or several."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise StateError(f"{path}: there is no such folder; name that of a run or of a log")
    logs = [folder] if (folder / "log.json").is_file() else []
    logs = logs or sorted(file.parent for file in folder.glob("*/log.json"))
    if not logs:
        raise StateError(f"{path}: holds no log of edits (log.json)")
    if len(logs) > 1:
        names = ", ".join(log.name for log in logs)
        raise StateError(f"{path}: holds several logs, name one of them: {names}")
    return EditLog(logs[0])


def load_base(name: str, device: str, dtypes: Iterable[str]) -> tuple[torch.nn.Module, Any]:
    """Load model and tokenizer in the one dtype that the edited weights have."""
    dtypes = sorted(set(dtypes))
    if len(dtypes) > 1 or not DTYPES.issuperset(dtypes):
        names = " and ".join(dtypes)
        raise NeuronEditError(f"the edited weights are {names}: load one of {', '.join(sorted(DTYPES))}")
    path = str(Path(name).expanduser()) if name.startswith("~") else name
    dtype = {"fp16": dtypes == ["float16"], "bf16": dtypes == ["bfloat16"]}
    hparams = SimpleNamespace(model_name=path, device=device, **dtype)
    return load_quietly(name, "--model", lambda: load_model(hparams))[:2]


def load_base_of(log: EditLog, args: argparse.Namespace) -> tuple[torch.nn.Module, Any]:
    """Load the base model of a log and its tokenizer; ``StateError`` if ``--model`` is another model."""
    dtypes = (weight["dtype"] for weight in log.base.weights.values())
    model, tok = load_base(args.model or log.base.name, args.device, dtypes)
    log.base.check(model)
    return model, tok


def made_in_chat(log: EditLog) -> bool:
    """Whether the newest edit in the weights was made inside the chat template."""
    return bool(log.ids) and log.edit_entry(log.ids[-1]).get("use_chat_template", False)


def select_edits(ids: list[int], selection: str | None, option: str = "--edits") -> list[int]:
    """The numbers in ``ids`` that a selection such as ``3,5-9`` names; None selects all.

    ``NeuronEditError`` for no list of numbers and ranges, or a part that selects nothing.
    """
    if selection is None:
        return ids
    selected: set[int] = set()
    for part in map(str.strip, selection.split(",")):
        numbers = re.fullmatch("([0-9]{1,18})(?:-([0-9]{1,18}))?", part)
        if numbers is None:
            raise NeuronEditError(f"{option} {selection}: {part!r} is no number or range, as in 3,5-9")
        first, last = int(numbers[1]), int(numbers[2] or numbers[1])
        matching = [number for number in ids if first <= number <= last]
        if not matching:
            present = "the log holds none"
            if ids:
                present = f"there are {ids[0]} to {ids[-1]}, those that were taken back left out"
            raise NeuronEditError(f"{option} {selection}: no edit {part} is in the weights; {present}")
        selected.update(matching)
    return sorted(selected)


def write_edited(
    args: argparse.Namespace, log: EditLog, edit: Callable[[torch.nn.Module, Path], EditLog]
) -> str:
    """Create the folder ``--out`` with edited weights and their log, completely or not at all.

    ``edit`` edits the base model of ``log``, and writes the log of these edits into a folder.
    """
    refuse_existing(Path(args.out))
    model, _ = load_base_of(log, args)

    def fill(folder: Path) -> None:
        base = edit(model, folder / "log").base
        weights = {name: model.get_parameter(name) for name in base.weights}
        save_tensors(folder / WEIGHTS, weights, {"base": base.name})

    out = Path(args.out).expanduser()
    out.parent.mkdir(parents=True, exist_ok=True)
    write_folder(out, fill)
    edited = open_log(out)
    weights = f"{Path(args.out) / WEIGHTS}: {len(edited.base.weights)} weights with {len(edited)} edits"
    return f"{weights}; {edited.folder}: {len(edited.entries)} entries\n"


def describe_request(entry: dict[str, Any]) -> str:
    """The first request of a log entry, shortened, and how many more there are."""
    first, *more = entry["requests"]
    text = f"{first['prompt']} -> {first['target_new']}"
    text = text if len(text) <= 60 else text[:57] + "..."
    return text + (f" (and {len(more)} more)" if more else "")


def aligned(rows: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def add_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER", help="folder of a run, or of its log")


def add_chat(parser: argparse.ArgumentParser, help_text: str) -> None:
    parser.add_argument("--chat", action=argparse.BooleanOptionalAction, default=None, help=help_text)


def add_out_and_model(parser: argparse.ArgumentParser, content: str = f"gets {WEIGHTS} and log/") -> None:
    parser.add_argument("--out", metavar="DIR", required=True, help=f"folder to create; {content}")
    add_model(parser)


def add_model(parser: argparse.ArgumentParser) -> None:
    help_text = "base model: folder, hub name or tiny-llama (default: the one that the edits were made on)"
    parser.add_argument("--model", metavar="BASE", help=help_text)
    parser.add_argument("--device", default="cpu", help="device to compute on (default: cpu)")
