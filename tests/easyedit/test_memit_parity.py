"""MEMIT against the real EasyEdit: the same z*, keys and deltas, single, in sequence and in a batch."""

import pytest
import torch
from helpers.parity import REQUESTS, Pair

TYPES = ["llama", "gpt2", "qwen2"]


@pytest.fixture
def pair(easyeditor, tmp_path, monkeypatch):
    return lambda model_type, **changes: Pair("MEMIT", model_type, tmp_path, monkeypatch, **changes)


@pytest.mark.parametrize("model_type", TYPES)
def test_targets(pair, model_type):
    """One- and several-token objects; EasyEdit decodes and re-tokenises all but the last target token, we append their ids."""
    both = pair(model_type)
    for request in REQUESTS[:3]:
        theirs, ours, initial = both.targets(request)
        assert float((theirs - initial).norm()) > 0.1
        assert float((theirs - ours).norm() / (theirs - initial).norm()) < 1e-3


@pytest.mark.parametrize("model_type", TYPES)
def test_keys(pair, model_type):
    for theirs, ours in pair(model_type).keys(REQUESTS[:3]).values():
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("model_type", TYPES)
def test_one_edit_and_five_in_sequence(pair, model_type):
    both = pair(model_type)
    original = both.weights()[0]
    differences = [both.edit([request]) for request in REQUESTS]
    assert differences[0] < 1e-3 and both.total_difference(original) < 1e-3


@pytest.mark.parametrize("model_type", TYPES)
def test_a_batch_of_three_and_another_edit(pair, model_type):
    both = pair(model_type)
    assert both.edit(REQUESTS[:3]) < 1e-3
    assert both.edit(REQUESTS[3:]) < 1e-3
