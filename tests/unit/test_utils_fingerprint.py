"""Fingerprints: the formula by hand, and that every kind of change shows."""

import pytest
import torch

from easyedit_neuron.utils import fingerprint as fp
from helpers.tiny_models import tiny_tokenizer

STEP = 0x9E3779B97F4A7C15


def by_hand(integers):
    """sum_i x_i (i STEP | 1) modulo 2^64, as a signed number."""
    total = sum(x * ((i * STEP) % 2**64 | 1) for i, x in enumerate(integers)) % 2**64
    return total - 2**64 if total >= 2**63 else total


@pytest.mark.parametrize(
    "dtype, view", [(torch.float32, torch.int32), (torch.bfloat16, torch.int16), (torch.float64, torch.int64)]
)
def test_checksum_by_hand(dtype, view):
    values = torch.tensor([[1.5, -2.0, 0.25], [0.0, -0.0, 7.0]], dtype=dtype)
    assert fp.tensor_checksum(values) == by_hand(values.flatten().view(view).tolist())


def test_checksum_does_not_depend_on_the_chunks_or_the_memory_order(monkeypatch):
    values = torch.randn(9, 7, generator=torch.Generator().manual_seed(0))
    whole = fp.tensor_checksum(values)
    assert fp.tensor_checksum(values.t().contiguous().t()) == whole
    monkeypatch.setattr(fp, "_CPU_CHUNK", 10)
    assert fp.tensor_checksum(values) == whole


def test_every_change_of_one_element_shows():
    values = torch.zeros(50)
    sums = {fp.tensor_checksum(values)}
    for i in range(50):
        changed = values.clone()
        changed[i] = 1e-30
        sums.add(fp.tensor_checksum(changed))
    assert len(sums) == 51
    assert fp.tensor_checksum(torch.tensor([0.0])) != fp.tensor_checksum(torch.tensor([-0.0]))
    assert fp.tensor_checksum(torch.tensor([1.0, 2.0])) != fp.tensor_checksum(torch.tensor([2.0, 1.0]))


def test_names_shapes_and_dtypes_count():
    values = torch.ones(4)
    prints = {
        fp.tensors_fingerprint([(n, t)])
        for n, t in (
            ("a", values),
            ("b", values),
            ("a", values.view(2, 2)),
            ("a", values.view(torch.int32)),
            ("a", values * 2),
        )
    }
    assert len(prints) == 5 and all(len(p) == 16 for p in prints)


def test_model_fingerprint_sees_parameters_and_buffers():
    model = torch.nn.BatchNorm1d(3)
    first = fp.model_fingerprint(model)
    assert fp.model_fingerprint(model) == first
    model.running_mean += 1
    second = fp.model_fingerprint(model)
    with torch.no_grad():
        model.weight[1] += 1
    assert len({first, second, fp.model_fingerprint(model)}) == 3


def test_texts_are_kept_apart_and_in_order():
    assert len({fp.text_fingerprint(t) for t in (["ab", "c"], ["a", "bc"], ["abc"], ["c", "ab"])}) == 4


def test_keys_do_not_depend_on_the_order_of_a_dictionary():
    assert (
        fp.key_fingerprint({"a": 1, "b": [2]})
        == fp.key_fingerprint({"b": [2], "a": 1})
        != fp.key_fingerprint({"a": 1, "b": [3]})
    )


def test_tokenizers_differ_by_what_they_add():
    texts = ["Anna Berg was born in Paris."]
    first = fp.tokenizer_fingerprint(tiny_tokenizer(True), texts)
    assert (
        first
        == fp.tokenizer_fingerprint(tiny_tokenizer(True), texts)
        != fp.tokenizer_fingerprint(tiny_tokenizer(False), texts)
    )


def test_neurons_that_are_not_used_yet_do_not_count():
    values = torch.arange(1.0, 13.0).view(4, 3)
    gate, up = values.split(2)
    zeros = torch.zeros(2, 3)

    def of(tensor):
        return fp.tensors_fingerprint([("a", tensor)])

    for same in (
        torch.cat([values, zeros]),
        torch.cat([gate, zeros, up, zeros]),  # two projections that are one matrix
        torch.cat([values, torch.zeros(4, 2)], 1),
    ):
        assert of(same) == of(values)
    assert of(torch.cat([torch.zeros(4, 2), values], 1)) != of(values)
    assert of(torch.cat([up, gate])) != of(values)
    assert of(torch.tensor([1.0, 2.0, 0.0])) == of(torch.tensor([1.0, 2.0]))
    assert of(torch.tensor([1.0, 0.0, 2.0])) != of(torch.tensor([1.0, 2.0]))
    assert of(torch.zeros(2, 3)) == of(torch.zeros(5, 3)) == of(torch.zeros(0, 3)) != of(torch.zeros(0, 0))
