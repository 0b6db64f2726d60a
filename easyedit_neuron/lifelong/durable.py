"""Writing that survives a kill and a power cut: data to the disk first, then one rename."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from ..errors import StateError

PART = ".part"  # ends the names of what is not finished


@contextmanager
def refusing(path: Path):
    """What the disk refuses becomes a StateError that names the path."""
    try:
        yield
    except (OSError, SafetensorError) as problem:
        reason = getattr(problem, "strerror", None) or str(problem)
        raise StateError(f"{path}: cannot be written: {reason}. What was saved before is kept: make room (or mend what the "
                         "message says) and give the same command again") from problem


def sync(path: Path) -> None:
    """Has the disk hold a file's content, or a folder's entries."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Replaces a file as a whole."""
    part = path.with_name(f".{path.name}{PART}")
    with refusing(path):
        try:
            with open(part, "wb") as file:
                file.write(text.encode("utf-8"))
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
        sync(path.parent)


def append_text(path: Path, text: str) -> None:
    """Appends; a kill may leave a part of it, which nobody reads: see resume.py."""
    with refusing(path):
        with open(path, "ab") as file:
            file.write(text.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())


def write_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """A folder that appears complete: ``fill`` writes into a part of another name, which is renamed once it is on the disk."""
    part = path.with_name(path.name + PART)
    with refusing(path):
        shutil.rmtree(part, ignore_errors=True)
        try:
            part.mkdir(parents=True)
            fill(part)
            for file in part.iterdir():
                sync(file)
            sync(part)
            os.replace(part, path)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
        sync(path.parent)


def remove_folder(path: Path) -> None:
    """Removes a folder, if it is there, and what an earlier removal left under its unfinished name when it was killed."""
    part = path.with_name(path.name + PART)
    with refusing(path):
        shutil.rmtree(part, ignore_errors=True)
        if path.is_dir():
            os.replace(path, part)
            shutil.rmtree(part)
