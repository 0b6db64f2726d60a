"""The side file of an export: which edits it holds, of which model, and how to know the model again."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from ..errors import NeuronEditError, StateError
from .source import Source, fingerprints

NAME = "easyedit_neuron.json"
FORMAT = 1
KINDS = ("peft", "sparse", "merged")


@dataclass(frozen=True)
class Exported:
    """A folder that was written.

    Attributes:
        folder: where.
        about: the content of its side file.
        size: bytes of all its files.
    """

    folder: Path
    about: dict[str, Any]
    size: int


def describe(
    source: Source, kind: str, before: dict[str, str], after: str, parameters: dict[str, dict], **more
) -> dict[str, Any]:
    """The content of the side file.

    Args:
        source: the edits.
        kind: one of ``KINDS``.
        before: ``fingerprints`` of the model without the edits.
        after: fingerprint of the touched parameters with them.
        parameters: what the export says of each touched parameter.
        **more: further entries, plain JSON values.
    """
    config = source.model.config
    return {
        "format": FORMAT,
        "kind": kind,
        "easyedit_neuron": __version__,
        "base": {
            "name": source.base,
            "model_type": getattr(config, "model_type", None),
            "dtype": _dtype(source.model),
            **before,
        },
        "after": after,
        "parameters": parameters,
        "edits": [
            {
                "id": ident,
                "method": record.method,
                "requests": record.requests,
                "seed": record.seed,
                "fingerprint_before": record.fingerprint_before,
                "fingerprint_after": record.fingerprint_after,
            }
            for ident, record in zip(source.ids, source.records)
        ],
        **more,
    }


def write_about(folder: Path, about: dict[str, Any], sealed: list[str]) -> None:
    """Writes the side file; ``sealed``: names of files in the folder whose checksums it holds."""
    about["files"] = {name: checksum(folder / name) for name in sealed}
    (folder / NAME).write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_about(path: str | Path) -> tuple[Path, dict[str, Any]]:
    """(folder, content of its side file) of an export that is named by its folder or by a file in it.

    Raises:
        StateError: no export of ours, of an unknown format, or its files are not those that were written.
    """
    folder = Path(path)
    folder = folder if folder.is_dir() else folder.parent
    if not Path(path).exists():
        raise StateError(f"{path}: there is no such file or folder")
    try:
        about = json.loads((folder / NAME).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StateError(
            f"{folder}: not written by easyedit-neuron export, it has no {NAME}. An adapter from elsewhere is "
            "merged by peft's merge_and_unload"
        ) from None
    except (OSError, ValueError) as problem:
        raise StateError(f"{folder / NAME}: not readable ({problem}); export again") from None
    if not isinstance(about, dict) or about.get("format") != FORMAT or about.get("kind") not in KINDS:
        raise StateError(
            f"{folder / NAME}: not the side file of an export, or of another format than {FORMAT}"
        )
    for name, expected in about["files"].items():
        if not (folder / name).is_file():
            raise StateError(f"{folder}: {name} is missing; export again")
        if checksum(folder / name) != expected:
            raise StateError(
                f"{folder / name}: not the file that was exported, its checksum differs; export again"
            )
    return folder, about


def check_base(model: torch.nn.Module, about: dict[str, Any], where: Path, taken_off: bool = False) -> None:
    """The model is the one that an export is of: without its edits, or with ``taken_off`` (they are about to
    be) with them.

    Raises:
        StateError: it is not; the message says whether another model, other edits or another dtype is the
            reason.
    """
    base, touched = about["base"], list(about["parameters"])
    if _dtype(model) != base["dtype"]:
        raise StateError(
            f"{where} is of a {base['dtype']} model, this one is {_dtype(model)}: load it in {base['dtype']}"
        )
    present = {name for name, _ in model.named_parameters()}
    if any(name not in present for name in touched):
        missing = next(name for name in touched if name not in present)
        raise StateError(
            f"{where} changes {missing}, which this model does not have: it is of {base['name']}"
        )
    now = fingerprints(model, touched)
    if now["rest"] != base["rest"]:
        raise StateError(
            f"{where} is of {base['name']}, and this is another model: weights that the edits do not touch differ"
        )
    expected, other = (about["after"], base["touched"]) if taken_off else (base["touched"], about["after"])
    if now["touched"] == other:
        raise StateError(
            f"{where}: the edits are {'not in this model' if taken_off else 'already in this model'}"
        )
    if now["touched"] != expected:
        state = "with these edits and no others" if taken_off else "unedited"
        raise StateError(f"{where} is of {base['name']}, {state}; this model has other edits in it")


def checksum(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for part in iter(lambda: file.read(1 << 20), b""):
            digest.update(part)
    return digest.hexdigest()


def free(out: Path) -> None:
    """``NeuronEditError`` if there is something at ``out`` already."""
    if out.exists():
        raise NeuronEditError(f"{out}: exists already; name another folder")


def folder_size(folder: Path) -> int:
    """Bytes of all files of a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _dtype(model: torch.nn.Module) -> str:
    return str(next(model.parameters()).dtype).removeprefix("torch.")
