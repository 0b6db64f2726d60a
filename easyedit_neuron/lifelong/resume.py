"""Whether a command may go on in a folder: the same run, or a refusal that names what differs."""

from __future__ import annotations

import contextlib
import json
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from ..errors import StateError
from ..utils.fingerprint import key_fingerprint
from ..utils.io import refusing, write_text
from .run_folder import RunFolder, as_json, finite

FORMAT = 1
MAY_DIFFER = (
    "output_dir",
    "run",
    "runner.save_every_edits",
    "runner.save_every_minutes",
    "runner.on_failure",
    "runner.keep_weights",
    "runner.edit_log",
    "runner.report",
    "runner.quiet",
)
"""Settings that change nothing in the results of the edits that have been made."""
_PUT_BACK = "Put the right one back, or choose another folder (run=NAME)"


def versions() -> dict[str, str]:
    """Versions that the numbers depend on."""
    found = {"easyedit_neuron": __version__, "python": platform.python_version()}
    return found | {name: metadata.version(name) for name in ("torch", "transformers", "tokenizers", "numpy")}


def machine() -> dict[str, Any]:
    """What the run began on: for the reader, and not part of its identity."""
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "system": platform.platform(),
        "threads": torch.get_num_threads(),
        "gpus": gpus,
        "CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES"),
    }


def identity(settings: dict[str, Any], hparams: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    """What makes a run this run and no other: plain JSON.

    Args:
        settings: all settings, nested.
        hparams: all hyperparameters.
        data: everything that is read: requests in their order, facts, texts; its fingerprints are kept.
    """
    kept = {}
    for name, value in settings.items():
        if isinstance(value, dict) and name != "method":
            value = {key: item for key, item in value.items() if f"{name}.{key}" not in MAY_DIFFER}
        if name not in MAY_DIFFER:
            kept[name] = value
    return json.loads(
        json.dumps(
            finite(
                {
                    "settings": kept,
                    "hparams": hparams,
                    "data": {name: key_fingerprint({"content": value}) for name, value in data.items()},
                    "versions": versions(),
                }
            ),
            default=str,
        )
    )


def differences(known: Any, now: Any, name: str = "") -> list[str]:
    """What differs, one phrase each: ``hparams.v_lr: 0.5 in the folder, 0.1 now``."""
    if isinstance(known, dict) and isinstance(now, dict):
        return [
            phrase
            for key in dict.fromkeys([*known, *now])
            for phrase in differences(
                known.get(key, "(absent)"), now.get(key, "(absent)"), f"{name}.{key}" if name else key
            )
        ]
    return [] if known == now else [f"{name}: {known} in the folder, {now} now"]


class Entry:
    """The way into a run's folder: held by one process at a time, and only for the run that it belongs to."""

    def __init__(self, files: RunFolder, identity: dict[str, Any]):
        self.files, self.identity = files, identity
        self.known: dict[str, Any] | None = None  # run.json, None for a new run

    @property
    def finished(self) -> bool:
        """The folder holds the summary of this run."""
        return self.known is not None and self.files.summary.is_file()

    def open(self, stack: contextlib.ExitStack) -> None:
        """Looks into the folder; it is this process's until the stack ends.

        Raises:
            StateError: another run's folder, or another process is in it. Nothing is changed.
        """
        folder = self.files.folder
        with refusing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        stack.enter_context(_held(folder))
        if self.files.run.is_file():
            self.known = self._read()
            found = differences(self.known["identity"], self.identity)
            if found:
                raise StateError(
                    f"{folder} holds another run; nothing was changed. {'; '.join(found)}. Repeat its command, or "
                    "choose another folder (run=NAME or output_dir=...)"
                )
            return
        strange = [path.name for path in vars(self.files).values() if path != folder and path.exists()]
        if strange:
            raise StateError(
                f"{folder} holds {', '.join(sorted(strange))} but no run.json, so it is not known of which run; "
                "nothing was changed. Choose another folder (run=NAME or output_dir=...)"
            )

    def confirm(self, model: dict[str, str], command: str) -> str:
        """Compares the fingerprints of model and tokenizer too, or begins the run; returns the run's own
        fingerprint."""
        if self.known is None:
            self.known = {
                "format": FORMAT,
                "identity": self.identity,
                "model": model,
                "command": command,
                "machine": machine(),
            }
            write_text(self.files.run, as_json(self.known))
        found = differences(self.known["model"], model, "model")
        if found:
            raise StateError(
                f"{self.files.folder} holds a run of another model; nothing was changed. {'; '.join(found)}"
            )
        return key_fingerprint({"identity": self.known["identity"], "model": self.known["model"]})

    def _read(self) -> dict[str, Any]:
        try:
            known = json.loads(self.files.run.read_text(encoding="utf-8"))
            if known["format"] == FORMAT and {"identity", "model"} <= known.keys():
                return known
            problem = f"format {known['format']}"
        except (OSError, ValueError, KeyError, TypeError) as error:
            problem = f"{type(error).__name__}: {error}"
        raise StateError(
            f"{self.files.run}: not readable as a run of this version ({problem}); choose another folder"
        )


@contextlib.contextmanager
def _held(folder: Path):
    """One process at a time; the system lets go of it when the process ends, however it does."""
    try:
        import fcntl
    except ImportError:  # no such locks on this system
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StateError(f"{folder}: another process is running in it") from None
        yield
    finally:
        os.close(handle)


# -- results so far
# ------------------------------------------------------------------------------------------------------


def before_digest(before: dict[str, Any]) -> str:
    """Fingerprint of ``before.json``."""
    return key_fingerprint(finite(before))


def edits_digest(lines: list[dict]) -> str:
    """Fingerprint of lines of ``edits.jsonl``; that of a finished run's is the same, which differ in
    ``final`` alone."""
    return key_fingerprint({"lines": [line | {"final": None} for line in lines]})


def read_before(files: RunFolder, digest: str | None) -> dict[str, Any] | None:
    """What was measured on the untouched model; None if it was not yet.

    Raises:
        StateError: the file is damaged, or is not the one that the state with this ``digest`` was made
            beside.
    """
    if digest is None and not files.before.is_file():
        return None
    try:
        before = json.loads(files.before.read_text(encoding="utf-8"))
        found = before_digest(before)
    except (OSError, ValueError) as problem:
        raise StateError(
            f"{files.before}: not readable ({problem}); it belongs to the run's state. {_PUT_BACK}"
        ) from None
    if digest is not None and found != digest:
        raise StateError(f"{files.before}: is not the one that the run's state belongs to. {_PUT_BACK}")
    return before


def read_lines(files: RunFolder, digest: str, count: int) -> list[dict]:
    """The first ``count`` lines of ``edits.jsonl``; what a killed process wrote behind them does not count.

    Raises:
        StateError: they are not those that the state with this ``digest`` was made after.
    """
    try:
        text = files.edits.read_text(encoding="utf-8", errors="replace")
        lines = [json.loads(line) for line in text.split("\n")[:count] if line]
    except (OSError, ValueError) as problem:
        raise StateError(
            f"{files.edits}: not readable ({problem}); the run's state is of edit {count}. {_PUT_BACK}"
        ) from None
    if len(lines) < count or edits_digest(lines) != digest:
        raise StateError(
            f"{files.edits}: its first {count} lines are not those that the run's state belongs to. {_PUT_BACK}"
        )
    return lines
