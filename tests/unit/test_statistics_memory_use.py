"""Memory of statistics: arithmetic, the log line before anything is taken, and what happens where there is no
more."""

import logging

import pytest
import torch

from easyedit_neuron.errors import StateError
from easyedit_neuron.statistics.memory_use import (
    decomposition_bytes,
    log_memory_needs,
    matrix_bytes,
    readable,
    to_device_or_host,
    zeros_on_device_or_host,
)


def test_bytes_by_hand():
    assert matrix_bytes(14336, torch.float32) == 822083584
    assert decomposition_bytes(100, torch.float64) == 3 * 80000
    assert [readable(n) for n in (0, 1023, 1024, 822083584, 5 << 30, 3 << 50)] == [
        "0 bytes",
        "1023 bytes",
        "1.0 KiB",
        "784.0 MiB",
        "5.0 GiB",
        "3072.0 TiB",
    ]


def test_what_is_needed_is_said(caplog):
    with caplog.at_level(logging.INFO):
        log_memory_needs([4, 5, 6, 7, 8], 14336, torch.float32, {"cuda:0"})
    (line,) = caplog.messages
    for part in (
        "memory on cuda:0",
        "3.8 GiB for the float32 sums of layers [4, 5, 6, 7, 8], 784.0 MiB a layer",
        "2.3 GiB for the eigen-decomposition",
        "392.0 MiB for a null space",
    ):
        assert part in line


def test_a_matrix_that_no_memory_holds():
    """The allocator's own error, not one made up."""
    with pytest.raises(StateError, match="sums: no room for 64.0 TiB in host memory.*fewer 'layers'"):
        zeros_on_device_or_host(1 << 22, torch.float32, torch.device("cpu"), "sums")


class Full:
    """Looks like a tensor whose way to the GPU fails."""

    def __init__(self, error):
        self.error = error

    def to(self, device):
        raise self.error

    def cpu(self):
        return "on the host"


def test_a_full_gpu_leaves_a_tensor_on_the_host(caplog):
    assert (
        to_device_or_host(
            Full(torch.cuda.OutOfMemoryError("CUDA out of memory")), torch.device("cuda", 1), "basis"
        )
        == "on the host"
    )
    assert caplog.messages == ["basis: no room on cuda:1, going on in host memory"]


@pytest.mark.parametrize(
    "error, device", [(RuntimeError("invalid device ordinal"), "cuda"), (MemoryError(), "cpu")]
)
def test_other_errors_are_not_swallowed(error, device):
    with pytest.raises(type(error)):
        to_device_or_host(Full(error), torch.device(device), "basis")


def test_sums_that_do_not_fit_on_the_gpu_are_made_on_the_host(monkeypatch, caplog):
    plain = torch.zeros

    def zeros(*size, device=None, **options):
        if device is not None and device.type == "cuda":
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return plain(*size, **options)

    monkeypatch.setattr(torch, "zeros", zeros)
    zeros_on_host = zeros_on_device_or_host(3, torch.float64, torch.device("cuda"), "sums")
    assert zeros_on_host.device.type == "cpu" and zeros_on_host.dtype == torch.float64
    assert torch.equal(zeros_on_host, plain(3, 3, dtype=torch.float64))
    assert "sums: no room on cuda" in caplog.text
