"""Which run a folder belongs to: a command may continue there only if it is the same run."""

import json
import os
import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from ..errors import StateError
from ..hyperparameters.base import distinguishing
from ..utils.fingerprint import key_fingerprint
from ..utils.io import write_text
from ..utils.plain_trees import read_json
from .run_folder import RunFolder, as_json, finite

FORMAT = 1
_MAY_DIFFER = "save_every_edits save_every_minutes on_failure untouched forecast_from keep_weights edit_log "
_MAY_DIFFER += "callbacks report quiet"
MAY_DIFFER = ("output_dir", "run", *(f"runner.{name}" for name in _MAY_DIFFER.split()))
"""Settings that change nothing in the results of the edits that have been made."""


def versions() -> dict[str, str]:
    """Versions that the numbers depend on."""
    packages = ("torch", "transformers", "tokenizers", "numpy")
    ours = {"easyedit_neuron": __version__, "python": platform.python_version()}
    return ours | {name: metadata.version(name) for name in packages}


def machine() -> dict[str, Any]:
    """The machine on which a run began; for the reader only, not part of the run's identity."""
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    system = {"system": platform.platform(), "threads": torch.get_num_threads(), "gpus": gpus}
    return system | {"CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES")}


def run_identity(settings: dict[str, Any], hparams: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    """What distinguishes one run from another, as plain JSON: all settings and hyperparameters.

    ``data`` is everything that is read (requests in order, facts, texts); only fingerprints are kept.
    """
    compared = {}
    for name, value in settings.items():
        if isinstance(value, dict) and name != "method":
            value = {key: item for key, item in value.items() if f"{name}.{key}" not in MAY_DIFFER}
        if name not in MAY_DIFFER:
            compared[name] = value
    digests = {name: key_fingerprint({"content": value}) for name, value in data.items()}
    identity = {
        "settings": compared,
        "hparams": distinguishing(hparams),
        "data": digests,
        "versions": versions(),
    }
    return json.loads(json.dumps(finite(identity), default=str))


def describe_differences(saved: Any, current: Any, name: str = "") -> list[str]:
    """What differs, one phrase each: ``hparams.v_lr: 0.5 in the folder, 0.1 now``."""
    if isinstance(saved, dict) and isinstance(current, dict):
        phrases = []
        for key in dict.fromkeys([*saved, *current]):
            values = saved.get(key, "(absent)"), current.get(key, "(absent)")
            phrases += describe_differences(*values, f"{name}.{key}" if name else key)
        return phrases
    return [] if saved == current else [f"{name}: {saved} in the folder, {current} now"]


@dataclass(frozen=True)
class OpenRun:
    """A folder that holds this run or none; ``saved`` is the content of ``run.json``, None for a new run."""

    files: RunFolder
    identity: dict[str, Any]
    saved: dict[str, Any] | None

    @property
    def finished(self) -> bool:
        """Whether the folder holds the summary of the run."""
        return self.saved is not None and self.files.summary.is_file()

    def begin_or_continue(self, model: dict[str, str], command: str) -> str:
        """Write ``run.json`` of a new run, or compare the model of the run that is continued; the run's
        fingerprint.

        ``model`` has fingerprints of weights and tokenizer. ``StateError`` where the folder's run is of
        another model.
        """
        run = self.saved
        if run is None:
            run = {"format": FORMAT, "identity": self.identity, "model": model, "command": command}
            run["machine"] = machine()
            write_text(self.files.run, as_json(run))
        differences = describe_differences(run["model"], model, "model")
        if differences:
            details = f"nothing was changed. {'; '.join(differences)}"
            raise StateError(f"{self.files.folder} holds a run of another model; {details}")
        return key_fingerprint({"identity": run["identity"], "model": run["model"]})


def open_run(files: RunFolder, identity: dict[str, Any]) -> OpenRun:
    """Look into a folder for the run of this identity; ``StateError`` if it holds another."""
    if not files.run.is_file():
        present = [path.name for path in vars(files).values() if path != files.folder and path.exists()]
        if present:
            raise StateError(
                f"{files.folder} holds {', '.join(sorted(present))} but no run.json, so its run is unknown; "
                "nothing was changed. Choose another folder (run=NAME or output_dir=...)"
            )
        return OpenRun(files, identity, None)
    saved = _read_run_file(files.run)
    differences = describe_differences(saved["identity"], identity)
    if differences:
        raise StateError(
            f"{files.folder} holds another run; nothing was changed. {'; '.join(differences)}. Repeat its "
            "command, or choose another folder (run=NAME or output_dir=...)"
        )
    return OpenRun(files, identity, saved)


def untouched_of(folder: Path, identity: dict[str, Any], model: dict[str, str]) -> Path:
    """``before.json`` of another run on the same edits, which begins with the same untouched model.

    Args:
        folder: of the other run.
        identity, model: of this run, as in ``run.json``.

    Raises:
        StateError: the folder holds no such run; the message names what differs.
    """
    files = RunFolder(folder)
    other = _read_run_file(files.run)
    theirs = _measured(other["identity"]) | {"model": other["model"]}
    differences = describe_differences(theirs, _measured(identity) | {"model": model})
    if differences or not files.before.is_file():
        problem = "; ".join(differences) or "it has not measured the untouched model"
        raise StateError(f"runner.untouched={folder} is no run on the same edits: {problem}. Leave it out")
    return files.before


def _measured(identity: dict[str, Any]) -> dict[str, Any]:
    """What the measurement of the untouched model depends on."""
    settings = {name: identity["settings"].get(name) for name in ("data", "evaluation", "edits", "seed")}
    settings["runner"] = {"order": identity["settings"].get("runner", {}).get("order")}
    chat = identity["hparams"].get("use_chat_template", False)
    own = {"settings": settings, "data": identity["data"], "versions": identity["versions"]}
    return own | {"use_chat_template": bool(chat)}


def _read_run_file(path: Path) -> dict[str, Any]:
    try:
        run = read_json(path)
        if run["format"] == FORMAT and {"identity", "model"} <= run.keys():
            return run
        problem = f"format {run['format']}"
    except (OSError, ValueError, KeyError, TypeError) as error:
        problem = f"{type(error).__name__}: {error}"
    raise StateError(f"{path}: not readable as a run of this version ({problem}); choose another folder")
