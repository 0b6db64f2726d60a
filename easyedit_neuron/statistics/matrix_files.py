"""Files of statistics: matrices with their provenance, and the sums of an unfinished measurement."""

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import safe_open

from ..errors import StatisticsError
from ..utils.fingerprint import tensors_fingerprint
from ..utils.io import save_tensors
from ..utils.plain_trees import parse_json
from .key_sums import KeySums

LOG = logging.getLogger(__name__)
SAVE_SECONDS = 45.0
"""Least time between two writes of unfinished sums."""
SHARE_OF_WRITING = 0.1
"""Those of five layers of an 8B model are 4 GB, about ten seconds of writing: they are written less often, so
that writing takes at most this share of the time."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an error of the file system into a ``StatisticsError`` that names ``path`` and the remedy."""
    try:
        yield
    except OSError as problem:
        raise StatisticsError(
            f"{path}: cannot be written ({problem.strerror or problem}); stats_dir=... names another folder"
        ) from problem


def write(path: Path, provenance: dict, tensors: dict[str, torch.Tensor], **metadata: str) -> None:
    """Write tensors atomically, with ``provenance`` (a JSON-able dictionary of all they depend on).

    Raises:
        StatisticsError: the folder cannot be written to.
    """
    stamp = {"about": json.dumps(provenance, sort_keys=True), "digest": _digest(tensors)}
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        save_tensors(path, tensors, {**stamp, **metadata})


def _digest(tensors: dict[str, torch.Tensor]) -> str:
    return tensors_fingerprint(sorted(tensors.items()))


def read(path: Path, provenance: dict) -> tuple[dict[str, torch.Tensor], dict[str, str]] | None:
    """``(tensors on the CPU, metadata)`` of a file, or ``None`` if there is none, or one of a version that
    wrote no digest of its tensors.

    Raises:
        StatisticsError: the file is damaged, its numbers have changed, or it has another provenance.
    """
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as handle:
            metadata = handle.metadata() or {}
            stored = parse_json(metadata.get("about", "null"))
            if stored == provenance:
                # Copies, because the file's tensors are not aligned and BLAS would round differently.
                tensors = {name: handle.get_tensor(name).clone() for name in handle.keys()}  # noqa: SIM118
                if "digest" not in metadata:
                    LOG.info(
                        "%s: of an earlier version, without a digest; removed, to be measured anew", path
                    )
                    path.unlink(missing_ok=True)
                    return None
                if metadata["digest"] != _digest(tensors):
                    raise ValueError("its numbers have changed since it was written")
                return tensors, metadata
    except Exception as problem:
        raise StatisticsError(
            f"{path}: not a readable statistics file ({problem}); delete it to measure anew"
        ) from problem
    raise StatisticsError(f"{path}: was made from {stored}, expected {provenance}; delete it to measure anew")


class UnfinishedSums:
    """Sums of a measurement under way, on disk, from which an interrupted measurement continues.

    The file is replaced as a whole between two windows of texts. The arithmetic does not depend on when it is
    saved, so a continued measurement ends with the same bits as an uninterrupted one.

    Args:
        path: the file; it may not exist yet.
        provenance: what the sums depend on.
        save_seconds: least time between two writes; 0: write every time. Default: ``SAVE_SECONDS``.
    """

    def __init__(self, path: Path, provenance: dict, save_seconds: float | None = None):
        self._path, self._provenance = path, provenance
        self._save_seconds = SAVE_SECONDS if save_seconds is None else save_seconds
        self._last_write, self._write_seconds = time.monotonic(), 0.0

    def load(self, sums: KeySums, tokens_per_batch: int) -> tuple[int, int]:
        """Copy the file's sums into ``sums``.

        Returns:
            ``(number of texts in the sums, tokens per batch that fitted into memory)``.

        Raises:
            StatisticsError: the file is damaged or foreign; it stays as it is.
        """
        content = read(self._path, self._provenance)
        if content is None:
            return 0, tokens_per_batch
        tensors, metadata = content
        try:
            position = parse_json(metadata["position"])
            texts, tokens, fitted = position["texts"], position["tokens"], position["tokens_per_batch"]
            sums.restore({layer: tensors[f"layer{layer}"] for layer in sums.sums}, tokens)
        except (KeyError, TypeError, ValueError, RuntimeError) as problem:
            raise StatisticsError(
                f"{self._path}: holds no unfinished sums ({problem!r}); delete it to measure anew"
            ) from problem
        LOG.info("%s: going on after %d texts (%d tokens)", self._path, texts, tokens)
        return texts, min(fitted, tokens_per_batch)

    def save(self, sums: KeySums, texts: int, tokens_per_batch: int) -> None:
        """Write the sums of the first ``texts`` texts, unless the last write is too recent."""
        started = time.monotonic()
        wait = self._save_seconds and max(self._save_seconds, self._write_seconds / SHARE_OF_WRITING)
        if started - self._last_write < wait:
            return
        tensors = {f"layer{layer}": tensor for layer, tensor in sums.sums.items()}
        position = {"texts": texts, "tokens": sums.count, "tokens_per_batch": tokens_per_batch}
        write(self._path, self._provenance, tensors, position=json.dumps(position))
        self._last_write = time.monotonic()
        self._write_seconds = self._last_write - started
        LOG.info("%d texts, %d tokens measured so far; saved in %s", texts, sums.count, self._path)

    def remove(self) -> None:
        """Delete the file, once the measurement's results are saved."""
        self._path.unlink(missing_ok=True)
