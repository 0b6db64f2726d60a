"""Files, of tensors or of anything else, that are complete or not there at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import save_file


def save_tensors(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    """Writes tensors (copied to the CPU, contiguous) and metadata to ``path`` atomically; its folder must exist."""
    with replacing(path) as name:
        save_file({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, name, metadata=metadata)


@contextmanager
def replacing(path: Path) -> Iterator[str]:
    """A name of its own to write to, which takes the place of ``path`` at the end of the block, unless that fails."""
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
    os.close(handle)
    try:
        yield name
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)
