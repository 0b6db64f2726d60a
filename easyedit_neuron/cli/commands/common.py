"""What the subcommands share: where a log is, and the model that it is of."""

from __future__ import annotations

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
    found = [folder] if (folder / "log.json").is_file() else sorted(file.parent for file in folder.glob("*/log.json"))
    if len(found) == 1:
        return found[0]
    if not folder.is_dir():
        raise StateError(f"{path}: there is no such folder; name that of a run or of a log")
    raise StateError(f"{path}: " + ("holds several logs, name one of them: " + ", ".join(log.name for log in found) if found else
                                    "holds no log of edits (log.json)"))


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
        raise NeuronEditError(f"the edited weights are {' and '.join(dtypes)}; the command loads models in one of float32, bfloat16 and "
                              "float16")
    if name.startswith(("/", "./", "../", "~")):
        if not Path(name).expanduser().is_dir():
            raise HparamsError(f"there is no folder {name!r}; --model names the base model")
        name = str(Path(name).expanduser())
    transformers_logging.disable_progress_bar()
    try:
        model, tok, _ = load_model(SimpleNamespace(model_name=name, device=device, fp16=dtypes == ["float16"], bf16=dtypes == ["bfloat16"]))
    finally:
        transformers_logging.enable_progress_bar()
    return model, tok
