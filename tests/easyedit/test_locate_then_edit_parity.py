"""AlphaEdit, MEMIT, ROME and R-ROME against the real EasyEdit: the same targets, keys, deltas; one edit,
many, batches."""

import pytest
import torch

from easyedit_neuron.host.loader import find_easyeditor
from easyedit_neuron.registry import get_method
from helpers.parity import REQUESTS, Pair, many_requests

TYPES = ["llama", "gpt2", "qwen2"]
METHODS = ["AlphaEdit", "MEMIT", "ROME", "R-ROME"]
COUNT = {"AlphaEdit": 50, "MEMIT": 50, "ROME": 10, "R-ROME": 10}


@pytest.fixture
def pair(easyeditor, tmp_path, monkeypatch):
    return lambda method, model_type, **changes: Pair(method, model_type, tmp_path, monkeypatch, **changes)


@pytest.mark.parametrize("model_type", TYPES)
@pytest.mark.parametrize("method", METHODS)
def test_targets(pair, method, model_type):
    """One- and several-token objects; EasyEdit decodes and re-tokenises all but the last target token, we
    append their ids."""
    both = pair(method, model_type)
    for request in REQUESTS[:3]:
        expected, actual, initial = both.targets(request)
        assert float((expected - initial).norm()) > 0.1
        assert float((expected - actual).norm() / (expected - initial).norm()) < 1e-3


@pytest.mark.parametrize("model_type", TYPES)
@pytest.mark.parametrize("method", METHODS)
def test_keys(pair, method, model_type):
    for expected, actual in pair(method, model_type).keys(REQUESTS[:3]):
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("model_type", TYPES)
@pytest.mark.parametrize("method", METHODS)
def test_one_edit_and_many_in_sequence(pair, method, model_type):
    """The first delta, and the sum of all of them."""
    both = pair(method, model_type)
    original = both.weights()[0]
    differences = [both.edit([request]) for request in many_requests(COUNT[method])]
    assert differences[0] < 1e-3 and both.total_difference(original) < 1e-3


@pytest.mark.parametrize("model_type", TYPES)
@pytest.mark.parametrize("method", ["AlphaEdit", "MEMIT"])
def test_batches_in_sequence(pair, method, model_type):
    both, requests = pair(method, model_type), many_requests(30)
    original = both.weights()[0]
    differences = [both.edit(requests[start : start + 10]) for start in (0, 10, 20)]
    assert differences[0] < 1e-3 and both.total_difference(original) < 1e-3


@pytest.mark.parametrize("method", ["ROME", "R-ROME"])
def test_a_batch_of_rome(pair, method):
    """EasyEdit edits the first request of a call and drops the others; ours are as many calls of
    EasyEdit's."""
    both, requests = pair(method, "llama"), many_requests(3)
    original = both.weights()[0]
    assert both.edit(requests) > 0.1
    for request in requests[1:]:
        both.edit_with_easyedit([request])
    assert both.total_difference(original) < 1e-3


@pytest.mark.parametrize("method", ["ROME", "R-ROME"])
def test_rome_without_the_covariance(pair, method):
    both = pair(method, "gpt2", mom2_adjustment=False)
    assert both.edit(REQUESTS[:1]) < 1e-3 and both.edit(REQUESTS[1:2]) < 1e-3


@pytest.mark.parametrize("method", METHODS)
def test_their_files_load(method):
    """Every hyperparameter file that EasyEdit ships for the method, as it is."""
    files = sorted((find_easyeditor().parent / "hparams" / method).glob("*.yaml"))
    assert len(files) > 3
    for path in files:
        hparams = get_method(method).load_hparams().from_hparams(path)
        assert hparams.path == {"R-ROME": "rome"}.get(method, method.lower())
        assert hparams.averaged_keys == (method == "R-ROME")


def test_an_object_that_ends_in_a_character_of_two_tokens(pair):
    """EasyEdit breaks the character and shifts its labels; ours is the loss of the real tokens
    (tests/tiny/test_compute_z.py)."""
    both = pair("AlphaEdit", "llama")
    ids = both.tok(" Malmø", add_special_tokens=False)["input_ids"]
    assert both.tok(both.tok.decode(ids[:-1]), add_special_tokens=False)["input_ids"] != ids[:-1]
    expected, actual, initial = both.targets({**REQUESTS[0], "target_new": "Malmø"})
    assert float((expected - actual).norm() / (expected - initial).norm()) > 0.05


def test_left_padding_of_the_tokenizer_leaves_ours_alone(pair):
    """EasyEdit sets right padding for AlphaEdit and needs it; ours gives the same z* under both."""
    both = pair("AlphaEdit", "llama")
    right = both.targets(REQUESTS[1])
    both.tok.padding_side = "left"
    left = both.targets(REQUESTS[1])
    assert torch.equal(left[1], right[1]) and not torch.allclose(left[0], right[0], atol=1e-3)
