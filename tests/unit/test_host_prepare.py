"""Request dictionaries from an editor's arguments."""

import copy
import random

import pytest

from easyedit_neuron.arch.load_model import target_device
from easyedit_neuron.errors import HparamsError, RequestError
from easyedit_neuron.host.prepare import prepare_requests, tidy_arguments


def test_one_text_is_a_list_of_one():
    assert prepare_requests(
        "A b",
        "c",
        "d",
        target_neg="n",
        rephrase_prompts="r",
        subject="A",
        loc_prompts="l",
        locality_inputs={"N": {"prompt": "p", "ground_truth": "g"}},
        portability_inputs={"R": {"prompt": "q", "ground_truth": "h"}},
    ) == [
        {
            "prompt": "A b",
            "target_new": "c",
            "ground_truth": "d",
            "target_neg": "n",
            "rephrase_prompt": "r",
            "subject": "A",
            "loc_prompt": "l",
            "locality": {"N": {"prompt": "p", "ground_truth": "g"}},
            "portability": {"R": {"prompt": "q", "ground_truth": "h"}},
        }
    ]
    assert prepare_requests("A b", "c") == [
        {"prompt": "A b", "target_new": "c", "ground_truth": None, "portability": {}, "locality": {}}
    ]


def test_arguments_are_not_changed_and_none_leaves_a_kind_out():
    inputs = {"N": {"prompt": [["p", "q"], None], "ground_truth": [["g", "h"], None]}}
    before = copy.deepcopy(inputs)
    first, second = prepare_requests(("A", "B"), ("c", "d"), locality_inputs=inputs)
    assert inputs == before and first["locality"] == {"N": {"prompt": ["p", "q"], "ground_truth": ["g", "h"]}}
    assert second["locality"] == {}


def test_loc_prompts_are_repeated_and_shuffled():
    random.seed(3)
    loc_prompts = [
        r["loc_prompt"] for r in prepare_requests(list("ABCDE"), list("abcde"), loc_prompts=["x", "y"])
    ]
    random.seed(3)
    expected = ["x", "y", "x", "y", "x"]
    random.shuffle(expected)
    assert loc_prompts == expected
    with pytest.raises(RequestError, match="loc_prompts: 3 given for 1"):
        prepare_requests("A", "b", loc_prompts=["x", "y", "z"])


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(prompts=[], target_new=[]), "prompts: none"),
        (dict(prompts="A", target_new=None), "target_new: not given"),
        (dict(prompts="A", target_new="b", target_neg=["c", "d"]), "target_neg: 2 given for 1"),
        (dict(prompts="A", target_new="b", subject=[None]), "subject: None does not occur"),
        (
            dict(prompts="A", target_new="b", portability_inputs={"R": []}),
            "portability_inputs\\['R'\\] must be",
        ),
        (
            dict(
                prompts="A", target_new="b", portability_inputs={"R": {"prompt": ["q"], "ground_truth": None}}
            ),
            "not None",
        ),
        (
            dict(
                prompts=["A", "B"],
                target_new=["b", "c"],
                locality_inputs={"N": {"prompt": ["q"], "ground_truth": ["h"]}},
            ),
            "1 given for 2",
        ),
    ],
)
def test_what_is_wrong_is_named(arguments, message):
    with pytest.raises(RequestError, match=message):
        prepare_requests(**arguments)


def test_devices(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert target_device("cpu") == target_device(None) == target_device(" ") == torch.device("cpu")
    for device in (0, "0", "cuda", "cuda:1"):
        with pytest.raises(HparamsError, match="'device'.*no CUDA device here; set 'device: cpu'"):
            target_device(device)
    with pytest.raises(HparamsError, match="'nonsense' is no device"):
        target_device("nonsense")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert target_device(1) == target_device("1") == torch.device("cuda:1") and target_device(
        None
    ) == torch.device("cuda:0")
    with pytest.raises(HparamsError, match="has 2 CUDA device"):
        target_device(2)


def test_arguments_of_easyedits_calls_are_tidied():
    """Lists and single texts, positional ones and further keywords; what does not fit together stays."""
    arguments = {
        "prompts": ["{} was born in ", "Rome is "],
        "target_new": [" Paris", "old\n"],
        "locality_inputs": {"near": {"prompt": ["Oslo is in ", None], "ground_truth": [" Norway", None]}},
        "kwargs": {"subject": ["Anna Berg ", "Rome"], "verbose": False},
    }
    tidy_arguments(arguments)
    assert arguments == {
        "prompts": ["Anna Berg was born in", "Rome is"],
        "target_new": ["Paris", "old"],
        "locality_inputs": {"near": {"prompt": ["Oslo is in", None], "ground_truth": ["Norway", None]}},
        "kwargs": {"subject": ["Anna Berg", "Rome"], "verbose": False},
    }
    single = {"prompts": "Rome is ", "target_new": " old", "kwargs": {"subject": "Rome"}}
    tidy_arguments(single)
    assert single == {"prompts": "Rome is", "target_new": "old", "kwargs": {"subject": "Rome"}}
    for odd in ({"prompts": ["a ", "b"], "target_new": ["c "]}, {"prompts": ("a ",), "target_new": 3}, {}):
        before = dict(odd)
        tidy_arguments(odd)
        assert odd == before
    ready = {"requests": [{"prompt": "Rome is ", "target_new": "old "}]}
    tidy_arguments(ready)
    assert ready == {"requests": [{"prompt": "Rome is", "target_new": "old"}]}
