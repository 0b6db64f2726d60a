"""Memory of statistics: how much they need, and host memory as the way out when a GPU is full."""

import logging

import torch

from ..errors import StateError
from ..utils.memory import is_out_of_memory

LOG = logging.getLogger(__name__)


def matrix_bytes(size: int, dtype: torch.dtype) -> int:
    """Bytes of a square matrix."""
    return size * size * dtype.itemsize


def decomposition_bytes(size: int, dtype: torch.dtype) -> int:
    """Bytes of a symmetric eigen-decomposition beside its matrix: vectors and twice as much workspace."""
    return 3 * matrix_bytes(size, dtype)


def readable(count: int) -> str:
    """Bytes with a unit: ``readable(14336 ** 2 * 4)`` is '784.0 MiB'."""
    number, units = float(count), ["bytes", "KiB", "MiB", "GiB", "TiB"]
    while number >= 1024 and len(units) > 1:
        number, units = number / 1024, units[1:]
    return f"{number:.1f} {units[0]}" if units[0] != "bytes" else f"{count} bytes"


def log_memory_needs(layers: list[int], size: int, dtype: torch.dtype, devices: set[str]) -> None:
    """Log what covariances and null spaces of the layers are about to need."""
    matrix = matrix_bytes(size, dtype)
    LOG.info(
        "memory on %s: %s for the %s sums of layers %s, %s a layer; %s for the eigen-decomposition of a "
        "layer beside its covariance; at most %s for a null space",
        ", ".join(sorted(devices)),
        readable(matrix * len(layers)),
        str(dtype).removeprefix("torch."),
        layers,
        readable(matrix),
        readable(decomposition_bytes(size, dtype)),
        readable(matrix // 2),
    )


def to_device_or_host(tensor: torch.Tensor, device: torch.device, name: str) -> torch.Tensor:
    """The tensor on ``device``, or in host memory if a GPU is full; ``name`` is for the log."""
    try:
        return tensor.to(device)
    except Exception as error:
        if torch.device(device).type == "cpu" or not is_out_of_memory(error):
            raise
    # Outside of the handler: its traceback holds what the failed attempt had allocated.
    leave_full_device(device, name)
    return tensor.cpu()


def zeros_on_device_or_host(size: int, dtype: torch.dtype, device: torch.device, name: str) -> torch.Tensor:
    """Zeros ``[size, size]`` on ``device``, or in host memory if a GPU is full; ``name`` is for the log.

    Raises:
        StateError: host memory is full as well; the message says how much is needed.
    """
    try:
        return torch.zeros(size, size, dtype=dtype, device=device)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        if torch.device(device).type == "cpu":
            raise StateError(
                f"{name}: no room for {readable(matrix_bytes(size, dtype))} in host memory; free some, or "
                "measure the layers one after the other, in runs with fewer 'layers'"
            ) from error
    leave_full_device(device, name)
    return zeros_on_device_or_host(size, dtype, torch.device("cpu"), name)


def leave_full_device(device: torch.device, name: str) -> None:
    """Log that ``name`` goes to host memory, and release the device's unused memory."""
    LOG.warning("%s: no room on %s, going on in host memory", name, device)
    torch.cuda.empty_cache()  # does nothing without CUDA
