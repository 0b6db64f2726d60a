"""Memory of statistics: how much, said before it is taken, and the host's where a GPU has no more."""

import logging

import torch

from ..errors import StateError
from ..utils.memory import is_out_of_memory

LOG = logging.getLogger(__name__)


def matrix_bytes(size: int, dtype: torch.dtype) -> int:
    """Bytes of a square matrix."""
    return size * size * dtype.itemsize


def decomposition_bytes(size: int, dtype: torch.dtype) -> int:
    """Bytes that a symmetric eigen-decomposition takes beside its matrix: the vectors and twice as much
    workspace (``syevd``)."""
    return 3 * matrix_bytes(size, dtype)


def readable(count: int) -> str:
    """Bytes with a unit: ``readable(14336 ** 2 * 4)`` is '784.0 MiB'."""
    number, units = float(count), ["bytes", "KiB", "MiB", "GiB", "TiB"]
    while number >= 1024 and len(units) > 1:
        number, units = number / 1024, units[1:]
    return f"{number:.1f} {units[0]}" if units[0] != "bytes" else f"{count} bytes"


def announce(layers: list[int], size: int, dtype: torch.dtype, devices: set[str]) -> None:
    """Logs what covariances and null spaces of the layers are about to need."""
    one = matrix_bytes(size, dtype)
    LOG.info(
        "memory on %s: %s for the %s sums of layers %s, %s a layer; %s for the eigen-decomposition of a layer beside its "
        "covariance; at most %s for a null space",
        ", ".join(sorted(devices)),
        readable(one * len(layers)),
        str(dtype).removeprefix("torch."),
        layers,
        readable(one),
        readable(decomposition_bytes(size, dtype)),
        readable(one // 2),
    )


def near(tensor: torch.Tensor, device: torch.device, what: str) -> torch.Tensor:
    """The tensor on ``device`` or, where that is full, as it is in host memory."""
    return _or_on_host(lambda: tensor.to(device), tensor.cpu, device, what)


def zeros_near(size: int, dtype: torch.dtype, device: torch.device, what: str) -> torch.Tensor:
    """Zeros [size, size] on ``device`` or, where that is full, in host memory.

    Raises:
        StateError: host memory is full as well; says how much is needed.
    """
    try:
        return _or_on_host(
            lambda: torch.zeros(size, size, dtype=dtype, device=device),
            lambda: torch.zeros(size, size, dtype=dtype),
            device,
            what,
        )
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise StateError(
            f"{what}: no room for {readable(matrix_bytes(size, dtype))} in host memory; free some, or measure fewer "
            "layers together (layers_at_once)"
        ) from error


def _or_on_host(make, make_on_host, device: torch.device, what: str):
    try:
        return make()
    except Exception as error:
        if torch.device(device).type == "cpu" or not is_out_of_memory(error):
            raise
    # outside of the handler, whose traceback holds what the failed attempt had allocated
    to_host(what, device)
    return make_on_host()


def to_host(what: str, device: torch.device) -> None:
    """Says that something goes to host memory, and gives the device's unused memory back."""
    LOG.warning("%s: no room on %s, going on in host memory", what, device)
    torch.cuda.empty_cache()  # does nothing without CUDA
