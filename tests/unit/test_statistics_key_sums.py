"""Sums of outer products: blocks, precision at 10^5 tokens, and memory that ends in the middle."""

from types import SimpleNamespace

import pytest
import torch

from easyedit_neuron.errors import StateError
from easyedit_neuron.statistics import key_sums as key_sums_module
from easyedit_neuron.statistics.key_sums import KeySums
from helpers.on_gpu import OnGpu


def key_sums(d_ff, dtype=torch.float64, layers=(3,)):
    return KeySums(
        SimpleNamespace(model=None, d_ff=d_ff, device_of=lambda layer: torch.device("cpu")),
        list(layers),
        dtype,
    )


def random_keys(count, d_ff, seed=0):
    """Gated activations: heavy tails, directions of very different energy."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(d_ff, d_ff, generator=generator) * torch.logspace(0, -2, d_ff) / d_ff**0.5
    gate, up = (torch.randn(count, d_ff, generator=generator) @ mix.T * 2 for _ in range(2))
    return torch.nn.functional.silu(gate + 0.3) * up


@pytest.mark.parametrize("block", [1, 7, 10, 30, 31, 256])
def test_equals_the_product_and_is_symmetric(monkeypatch, block):
    monkeypatch.setattr(key_sums_module, "BLOCK", block)
    keys = random_keys(50, 30).double()
    sums = key_sums(30)
    sums.add(3, keys[:20])
    sums.add(3, keys[20:])
    sums.count = 50
    matrix = sums.covariances()[3]
    torch.testing.assert_close(matrix, keys.T @ keys / 50, rtol=1e-12, atol=1e-14)
    assert torch.equal(matrix, matrix.T)


def test_what_float32_costs_at_131072_tokens():
    """The docstring's number: about 1e-6 of the largest eigenvalue, and eigenvalues and projector follow."""
    batches = [random_keys(4096, 64, seed) for seed in range(4)]
    single, double = key_sums(64, torch.float32), key_sums(64, torch.float64)
    for number in range(32):
        keys = batches[number % 4]
        single.add(3, keys)
        double.add(3, keys.double())
    single.count = double.count = 32 * 4096
    low, exact = single.covariances()[3], double.covariances()[3]
    assert low.dtype == torch.float32 and exact.dtype == torch.float64
    values = torch.linalg.eigvalsh(exact)
    assert torch.linalg.matrix_norm(low.double() - exact, 2) < 2e-6 * values[-1]
    assert (torch.linalg.eigvalsh(low).double() - values).abs().max() < 4e-6 * values[-1]


@pytest.mark.parametrize("failing", [0, 1, 3, 4])
def test_sums_move_to_the_host_in_the_middle_of_a_batch(monkeypatch, caplog, failing):
    """Four blocks a batch; the ``failing``-th addition finds no memory. Nothing is lost, nothing added
    twice."""
    monkeypatch.setattr(key_sums_module, "BLOCK", 8)
    keys = random_keys(50, 30).double()
    sums = key_sums(30)
    sums.sums[3] = sums.sums[3].as_subclass(OnGpu)
    plain, calls = KeySums._add_rows, []

    def add_rows(self, layer, start, keys):
        calls.append(start)
        if len(calls) == failing + 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        plain(self, layer, start, keys)

    monkeypatch.setattr(KeySums, "_add_rows", add_rows)
    for part in (keys[:20], keys[20:]):
        sums.add(3, part.as_subclass(OnGpu))
    sums.count = 50
    assert (
        len(calls) == 9
        and "sums of the keys of layer 3: no room on cuda:0, going on in host memory" in caplog.text
    )
    torch.testing.assert_close(sums.covariances()[3], keys.T @ keys / 50, rtol=1e-12, atol=1e-14)


def test_a_full_host_is_an_error(monkeypatch):
    def full(self, layer, start, keys):
        raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes.")

    monkeypatch.setattr(KeySums, "_add_rows", full)
    with pytest.raises(StateError, match="layer 3: no room even"):
        key_sums(30).add(3, random_keys(5, 30).double())
