"""The program that compares the sums over the vocabulary, on the shipped model."""

import json

import pytest
import torch

from benchmarks import vocab_sum


def test_differences_by_hand():
    random = torch.Generator().manual_seed(0)
    exact = torch.randn(4, 50, generator=random)
    other = exact.clone()
    other[2:, 0] = 100.0  # in the second edit neuron 0 becomes the most specific
    first, second = vocab_sum.mask_differences(exact, other, 2)
    assert first == 0.0 and 0 < second < 0.3


def test_it_runs(tmp_path, capsys):
    file = tmp_path / "result.json"
    words = [
        "--model",
        "tiny-llama",
        "--data",
        "tiny-world",
        "--layers",
        "1",
        "--edits",
        "2",
        "--repeats",
        "1",
    ]
    assert vocab_sum.main([*words, "--json", str(file)]) == 0
    (row,) = json.loads(file.read_text())["results"]
    assert row["edits"] == 2 and row["prompts"] == 12 and row["ratio"] > 0 and row["largest"] < 0.05
    assert row["sampled, of an edit"] == pytest.approx(row["sampled s/edit"] / row["edit without LPS, s"])
    assert "mask differs, mean" in capsys.readouterr().out
