"""Files of statistics: tensors with all that they depend on beside them, and a measurement that is not
finished."""

import json
import logging
import time
from pathlib import Path

import torch
from safetensors import safe_open

from ..errors import StateError
from ..utils.io import save_tensors
from .key_sums import KeySums

LOG = logging.getLogger(__name__)
SAVE_SECONDS = 600.0
"""Least time between two writes of unfinished sums: those of five layers of an 8B model are 4 GB, some ten
seconds of writing."""


def write(path: Path, about: dict, tensors: dict[str, torch.Tensor], **more: str) -> None:
    """Writes tensors atomically, with ``about`` (JSON-able) and further metadata."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_tensors(path, tensors, {"about": json.dumps(about, sort_keys=True), **more})


def read(path: Path, about: dict) -> tuple[dict[str, torch.Tensor], dict[str, str]] | None:
    """Tensors on the CPU and metadata of a file; None if there is none.

    Raises:
        StateError: the file is damaged, or was made from something else than ``about``.
    """
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as handle:
            metadata = handle.metadata() or {}
            stored = json.loads(metadata.get("about", "null"))
            if stored == about:
                # copies: the file's tensors are not aligned, and BLAS then rounds otherwise than it did when
                # they were measured
                return {name: handle.get_tensor(name).clone() for name in handle.keys()}, metadata
    except Exception as problem:
        raise StateError(
            f"{path}: not a readable statistics file ({problem}); delete it to measure anew"
        ) from problem
    raise StateError(f"{path}: was made from {stored}, expected {about}; delete it to measure anew")


class Unfinished:
    """Sums of a measurement under way, on disk, so that an interrupted one goes on where it was last saved.

    The file is replaced as a whole, between two windows of texts. Since a measurement's arithmetic does not
    depend on when it is saved, a continued one ends with the same bits as one that was never interrupted.

    Args:
        path: the file; it may not exist.
        about: what the sums depend on.
        save_seconds: least time between two writes.
    """

    def __init__(self, path: Path, about: dict, save_seconds: float | None = None):
        self._path, self._about = path, about
        self._every = SAVE_SECONDS if save_seconds is None else save_seconds
        self._saved = time.monotonic()

    def load(self, sums: KeySums, tokens_per_batch: int) -> tuple[int, int]:
        """Puts what the file holds into the sums; returns how many texts they are of, and the tokens per
        batch that had fitted.

        Raises:
            StateError: the file is damaged or foreign. It stays as it is.
        """
        found = read(self._path, self._about)
        if found is None:
            return 0, tokens_per_batch
        tensors, metadata = found
        try:
            position = json.loads(metadata["position"])
            texts, tokens, fitted = position["texts"], position["tokens"], position["tokens_per_batch"]
            sums.restore({layer: tensors[f"layer{layer}"] for layer in sums.sums}, tokens)
        except (KeyError, TypeError, ValueError, RuntimeError) as problem:
            raise StateError(
                f"{self._path}: holds no unfinished sums ({problem!r}); delete it to measure anew"
            ) from problem
        LOG.info("%s: going on after %d texts (%d tokens)", self._path, texts, tokens)
        return texts, min(fitted, tokens_per_batch)

    def save(self, sums: KeySums, texts: int, tokens_per_batch: int) -> None:
        """Writes the sums of the first ``texts`` texts, unless the last write is too recent."""
        if time.monotonic() - self._saved < self._every:
            return
        position = {"texts": texts, "tokens": sums.count, "tokens_per_batch": tokens_per_batch}
        write(
            self._path,
            self._about,
            {f"layer{layer}": tensor for layer, tensor in sums.sums.items()},
            position=json.dumps(position),
        )
        self._saved = time.monotonic()
        LOG.info("%d texts, %d tokens measured so far; saved in %s", texts, sums.count, self._path)

    def remove(self) -> None:
        """Deletes the file, once the measurement's results are safe."""
        self._path.unlink(missing_ok=True)
