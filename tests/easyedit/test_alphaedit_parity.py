"""AlphaEdit against the real EasyEdit: the same z*, keys and deltas, single, in sequence and in a batch."""

import pytest
import torch
from helpers.parity import REQUESTS, Pair

TYPES = ["llama", "gpt2", "qwen2"]


@pytest.fixture
def pair(easyeditor, tmp_path, monkeypatch):
    return lambda model_type, **changes: Pair("AlphaEdit", model_type, tmp_path, monkeypatch, **changes)


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


def test_an_object_that_ends_in_a_character_of_two_tokens(pair):
    """EasyEdit's decoding breaks the character and shifts its labels; ours is the loss of the real tokens (tests/tiny/test_paths_target.py)."""
    both = pair("llama")
    ids = both.tok(" Malmø", add_special_tokens=False)["input_ids"]
    assert both.tok(both.tok.decode(ids[:-1]), add_special_tokens=False)["input_ids"] != ids[:-1]
    theirs, ours, initial = both.targets({**REQUESTS[0], "target_new": "Malmø"})
    assert float((theirs - ours).norm() / (theirs - initial).norm()) > 0.05


def test_left_padding_of_the_tokenizer_leaves_ours_alone(pair):
    """EasyEdit sets right padding for AlphaEdit and needs it; ours gives the same z* under both."""
    both = pair("llama")
    right = both.targets(REQUESTS[1])
    both.tok.padding_side = "left"
    left = both.targets(REQUESTS[1])
    assert torch.equal(left[1], right[1]) and not torch.allclose(left[0], right[0], atol=1e-3)
