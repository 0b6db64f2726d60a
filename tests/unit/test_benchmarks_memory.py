"""The memory estimate of the benchmarks against the sizes of Llama-3-8B."""

import pytest
import torch

from benchmarks import memory
from benchmarks.models import SHAPES, random_llama

LAYERS = [4, 5, 6, 7, 8]
D_MODEL, D_FF = 4096, 14336


def needed(shape, dtype=torch.bfloat16, solve_dtype=torch.float64, device="cuda"):
    return memory.bytes_needed(shape, dtype, solve_dtype, LAYERS, 200, device)


@pytest.mark.parametrize("shape", ["80m", "tiny"])
def test_weights_are_those_of_the_real_model(shape):
    model, _ = random_llama(shape, torch.bfloat16)
    assert needed(shape)["weights"] == sum(p.numel() * p.element_size() for p in model.parameters())


def test_llama_3_8b_in_numbers():
    needs = needed("llama3-8b")
    assert needs["weights"] == 2 * 8_030_261_248  # its published size
    assert needs["covariances"] == 5 * D_FF**2 * 4
    assert needs["eigen-decomposition"] == 3 * 822_083_584
    assert needs["copies of weights"] == 5 * D_MODEL * D_FF * 2 + 3 * D_MODEL * D_FF * 4
    assert memory.widest_basis(D_FF) == D_FF // 2 - 1
    assert needs["null space bases"] == 5 * D_FF * (D_FF // 2 - 1) * 4 == needs["solvers"] // 2
    assert needed("llama3-8b", solve_dtype=torch.float32)["solvers"] == needs["solvers"] // 2


@pytest.mark.parametrize("shape", SHAPES)
def test_the_table_names_every_consumer_and_the_sum(shape):
    needs = needed(shape)
    assert min(needs.values()) > 0 and needed(shape, device="cpu")["overhead"] == 0
    lines = memory.table(needs).splitlines()
    assert [line.rsplit(maxsplit=2)[0] for line in lines] == [*needs, "together"]
    assert f"{sum(needs.values()) / 2**30:.1f} GiB" in lines[-1]
