"""Files and folders that are complete or absent, and that survive a kill or a power cut: data first, then one
rename."""

import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from ..errors import StateError

PART = ".part"
"""Suffix of the names of unfinished files and folders."""
STALE_SECONDS = 3600.0
"""An unfinished file that nobody has written to for so long belongs to no living process."""


@contextmanager
def refusing(path: Path) -> Iterator[None]:
    """Turn an error of the file system into a ``StateError`` that names ``path``."""
    try:
        yield
    except (OSError, SafetensorError) as problem:
        reason = getattr(problem, "strerror", None) or str(problem)
        raise StateError(
            f"{path}: cannot be written: {reason}. What was saved before is kept: make room (or correct what "
            "the message says) and give the same command again"
        ) from problem


def sync(path: Path | str) -> None:
    """Flush the content of a file, or the entries of a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def replacing(path: Path) -> Iterator[str]:
    """Yield a temporary name in the same folder; the file written there replaces ``path`` unless the block
    fails.

    The name is unique, so that several processes may write the same path.
    """
    name = _new_file(path.parent, f".{path.name}-")
    mode = os.stat(name).st_mode
    try:
        yield name
        os.chmod(name, mode)  # safetensors replaces the file by one that the owner alone can read
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


def _new_file(folder: Path, prefix: str) -> str:
    """An empty file of a name of its own, with the rights that the user's umask gives (``tempfile`` makes
    files that nobody else in a group can read)."""
    while True:
        name = folder / f"{prefix}{secrets.token_hex(6)}{PART}"
        with suppress(FileExistsError):
            os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            return str(name)


def remove_parts_below(folder: Path) -> None:
    """Remove what killed processes have left unfinished in a folder and those below it; no other process may
    be writing there."""
    for part in sorted(folder.rglob(f"*{PART}")):
        if part.is_dir() and not part.is_symlink():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)


def remove_stale_parts(folder: Path) -> None:
    """Remove unfinished files in a folder that others may be writing to: those untouched for long enough
    that their writers must have been killed. Errors are ignored: the folder may not be ours."""
    for part in folder.glob(f".*-*{PART}"):
        with suppress(OSError):
            if time.time() - part.stat().st_mtime > STALE_SECONDS:
                part.unlink()


def save_tensors(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    """Write tensors (copied to the CPU, contiguous) and metadata to ``path`` atomically; its folder must
    exist."""
    with replacing(path) as name:
        save_file(
            {key: value.detach().cpu().contiguous() for key, value in tensors.items()},
            name,
            metadata=metadata,
        )


def write_text(path: Path, text: str) -> None:
    """Replace a file as a whole. The temporary name is fixed: a killed writer leaves nothing for the next one
    to find."""
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


def write_text_once(path: Path, text: str) -> None:
    """Write a file that appears complete, unless it exists by then: another process may be reading it."""
    part = _new_file(path.parent, f".{path.name}-")
    try:
        with open(part, "w", encoding="utf-8") as file:
            file.write(text)
        with suppress(FileExistsError):
            os.link(part, path)
    finally:
        os.unlink(part)


def append_text(path: Path, text: str) -> None:
    """Append to a file. A kill may leave a part of the text, which readers cut off (see
    ``lifelong.resume``)."""
    with refusing(path), open(path, "ab") as file:
        file.write(text.encode("utf-8"))
        file.flush()
        os.fsync(file.fileno())


def write_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Create a folder that appears complete: ``fill`` writes into a folder of another name, which is then
    renamed."""
    part = path.with_name(path.name + PART)
    with refusing(path):
        shutil.rmtree(part, ignore_errors=True)
        try:
            part.mkdir(parents=True)
            fill(part)
            for file in part.iterdir():
                if file.is_file():  # as the umask has it for the folder: libraries differ
                    os.chmod(file, part.stat().st_mode & 0o666)
                sync(file)
            sync(part)
            os.replace(part, path)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
        sync(path.parent)


@contextmanager
def held(folder: Path, what: str) -> Iterator[None]:
    """Hold a folder for this process; it is created, and removed again if nothing was written into it.

    The system lets go of it when the process ends, however it ends. What killed processes have left
    unfinished there is removed.

    Args:
        folder: the folder.
        what: its content, for the message.

    Raises:
        StateError: another process holds it.
    """
    with refusing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:  # Windows has no such locks
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            problem = f"another process works on {what}"
            raise StateError(f"{folder}: {problem}; wait for it, or end it") from None
        with refusing(folder):
            remove_parts_below(folder)
        yield
    finally:
        with suppress(OSError):  # it is not empty, or another process has it
            folder.rmdir()
        os.close(handle)


def remove_folder(path: Path) -> None:
    """Remove a folder if it exists, and what an earlier, killed removal left of it."""
    part = path.with_name(path.name + PART)
    with refusing(path):
        shutil.rmtree(part, ignore_errors=True)
        if path.is_dir():
            os.replace(path, part)
            shutil.rmtree(part)
