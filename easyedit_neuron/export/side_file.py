"""The side file of an export: which edits it holds, of which model, and how to recognize that model."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from ..editlog.files import file_digest
from ..errors import NeuronEditError, StateError
from ..hyperparameters.base import distinguishing
from ..utils.io import write_folder
from ..utils.plain_trees import read_json
from ..utils.schema import damage_is, mismatch
from . import card
from .source import EditedWeights, Source, split_fingerprints

NAME = "easyedit_neuron.json"
FORMAT = 1
KINDS = ("peft", "sparse", "merged", "gguf")
_OF_THE_MACHINE = ("model_name", "device", "stats_dir")
"""Hyperparameters that are no settings of an edit."""


_BASE = {"name": str, "dtype": str, "touched": str, "rest": str}
_FORM = {"base": _BASE, "after": str, "files": {str: str}, "edits": [{str: object}]}
_PARAMETERS: dict[str, dict] = {
    "peft": {"rank": int},
    "sparse": {"dim": int, "units": int, "of": int},
    "merged": {},
    "gguf": {},
}
"""Form of a side file, and of what it says of each parameter; see ``utils.schema``."""


@dataclass(frozen=True)
class Exported:
    """A folder that was written, the content of its side file, and the bytes of all its files."""

    folder: Path
    side_file: dict[str, Any]
    size: int


def describe(
    source: Source,
    kind: str,
    weights: EditedWeights,
    parameters: dict[str, dict],
    measured: dict[str, Any] | None = None,
    **extra,
) -> dict[str, Any]:
    """The content of the side file; ``parameters``: what the export says of each touched parameter.

    ``measured``: scores of exactly these edits, ``[value, low, high]`` by EasyEdit's names.
    """
    base = {"name": source.base, "model_type": getattr(source.model.config, "model_type", None)}
    base |= {"dtype": _dtype(source.model), **weights.before}
    copied = ("method", "requests", "seed", "fingerprint_before", "fingerprint_after")
    edits = [
        {"id": edit_id, **{name: getattr(record, name) for name in copied}}
        for edit_id, record in zip(source.ids, source.records)
    ]
    side_file = {"format": FORMAT, "kind": kind, "easyedit_neuron": __version__, "base": base}
    side_file |= {"after": weights.after, "parameters": parameters, "edits": edits}
    side_file["settings"] = {record.method: _settings(record.hparams) for record in reversed(source.records)}
    return side_file | ({"measured": measured} if measured else {}) | extra


def _settings(hparams: dict[str, Any]) -> dict[str, Any]:
    """The settings of an edit; of a file the name alone, because an export is for others."""
    settings = {name: value for name, value in distinguishing(hparams).items() if name not in _OF_THE_MACHINE}
    return {
        name: Path(value).name if isinstance(value, str) and Path(value).expanduser().is_absolute() else value
        for name, value in settings.items()
    }


def write_export(
    out: str | Path, side_file: dict[str, Any], fill: Callable[[Path], None], checked: Sequence[str] = ()
) -> Exported:
    """Write an export's folder, which appears complete or not at all; ``fill`` writes all but the side file
    and the model card (of kinds that a model loader reads), which are made last.

    The side file gets the SHA-256 of the files named in ``checked``.
    """
    out = Path(out)

    def fill_all(folder: Path) -> None:
        fill(folder)
        side_file["files"] = {name: file_digest(folder / name) for name in checked}
        text = json.dumps(side_file, indent=1, ensure_ascii=False) + "\n"
        (folder / NAME).write_text(text, encoding="utf-8")
        if side_file["kind"] in card.LIBRARIES:
            (folder / card.NAME).write_text(card.card(side_file), encoding="utf-8")

    write_folder(out, fill_all)
    return Exported(out, side_file, folder_size(out))


def read_side_file(path: str | Path) -> tuple[Path, dict[str, Any]]:
    """(folder, content of its side file) of an export that is named by its folder or by a file in it."""
    if not Path(path).exists():
        raise StateError(f"{path}: there is no such file or folder")
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    try:
        side_file = read_json(folder / NAME)
    except FileNotFoundError:
        reason = f"it has no {NAME}. An adapter from elsewhere is merged by peft's merge_and_unload"
        raise StateError(f"{folder}: not written by easyedit-neuron export, {reason}") from None
    except (OSError, ValueError) as problem:
        raise StateError(f"{folder / NAME}: not readable ({problem}); export again") from None
    is_side_file = isinstance(side_file, dict) and side_file.get("format") == FORMAT
    if not is_side_file or side_file.get("kind") not in KINDS:
        raise StateError(f"{folder / NAME}: not the side file of an export of format {FORMAT}")
    damage = mismatch(side_file, _FORM | {"parameters": {str: _PARAMETERS[side_file["kind"]]}})
    if damage:
        raise StateError(f"{folder / NAME}: {damage}; export again")
    # The rest is read by the card of the checkpoint that an import writes, and by nothing else.
    with damage_is(StateError, f"{folder / NAME}: no model card can be made of it; export again"):
        card.card(side_file | {"kind": "merged"})
    for name, digest in side_file["files"].items():
        if Path(name).name != name:
            raise StateError(f"{folder / NAME}: {name!r} is no name of a file in its folder; export again")
        if not (folder / name).is_file() or file_digest(folder / name) != digest:
            raise StateError(f"{folder / name}: not the file that was exported (other SHA-256); export again")
    return folder, side_file


def check_base(
    model: torch.nn.Module, side_file: dict[str, Any], folder: Path, has_edits: bool = False
) -> None:
    """``StateError`` unless the model is the export's base, without its edits or (``has_edits``) with
    them."""
    base, touched = side_file["base"], list(side_file["parameters"])
    if _dtype(model) != base["dtype"]:
        dtypes = f"is of a {base['dtype']} model, this one is {_dtype(model)}"
        raise StateError(f"{folder} {dtypes}: load it in {base['dtype']}")
    present = {name for name, _ in model.named_parameters()}
    missing = [name for name in touched if name not in present]
    if missing:
        problem = f"changes {missing[0]}, which this model does not have"
        raise StateError(f"{folder} {problem}: it is of {base['name']}")
    now = split_fingerprints(model, touched)
    if now["rest"] != base["rest"]:
        problem = "this is another model: weights that the edits do not change differ"
        raise StateError(f"{folder} is of {base['name']}, and {problem}")
    expected, opposite = base["touched"], side_file["after"]
    if has_edits:
        expected, opposite = opposite, expected
    if now["touched"] == opposite:
        raise StateError(f"{folder}: the edits are {'not' if has_edits else 'already'} in this model")
    if now["touched"] != expected:
        state = "with these edits and no others" if has_edits else "unedited"
        raise StateError(f"{folder} is of {base['name']}, {state}; this model has other edits in it")


def refuse_existing(out: str | Path) -> None:
    """Raise a ``NeuronEditError`` if there is something at ``out`` already."""
    if Path(out).exists():
        raise NeuronEditError(f"{out}: exists already; name another folder")


def folder_size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _dtype(model: torch.nn.Module) -> str:
    return str(next(model.parameters()).dtype).removeprefix("torch.")
