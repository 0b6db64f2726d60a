"""Safetensors files that are complete or not there at all."""

import os
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file


def save_tensors(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    """Writes tensors (copied to the CPU, contiguous) and metadata to ``path`` atomically; its folder must exist."""
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
    os.close(handle)
    try:
        save_file({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, name, metadata=metadata)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)
