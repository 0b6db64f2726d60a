"""Requests: what is filled in, what is refused, and that the caller's dictionaries stay as they are."""

import copy

import pytest

from easyedit_neuron.edits.request import prepare
from easyedit_neuron.errors import RequestError

GOOD = {
    "prompt": "Anna Berg was born in",
    "subject": "Anna Berg",
    "target_new": "Paris",
    "ground_truth": "Rome",
}


def one(**changes):
    return prepare([{**GOOD, **changes}])[0]


def test_subject_becomes_the_place_and_objects_get_a_space():
    request = one()
    assert (request.index, request.prompt, request.subject) == (0, "{} was born in", "Anna Berg")
    assert (request.target_new, request.ground_truth, request.text) == (
        " Paris",
        " Rome",
        "Anna Berg was born in",
    )


def test_nothing_is_changed_in_the_input():
    requests = [dict(GOOD), {**GOOD, "ground_truth": ["Rome", "Roma"], "locality": {"a": {"prompt": ["b"]}}}]
    before = copy.deepcopy(requests)
    prepared = prepare(requests)
    assert requests == before and prepared[1].raw is requests[1] and [r.index for r in prepared] == [0, 1]


@pytest.mark.parametrize(
    "truth, expected",
    [
        (None, None),
        ("", None),
        ("  ", None),
        (3, None),
        ([], None),
        ([[]], None),
        (["Rome", "Roma"], " Rome"),
        ([["Rome"]], " Rome"),
        (" Rome", " Rome"),
    ],
)
def test_ground_truth_may_be_a_list_of_aliases(truth, expected):
    assert one(ground_truth=truth).ground_truth == expected


def test_a_leading_space_is_not_doubled():
    assert one(target_new="  Paris").target_new == " Paris"


def test_a_prompt_that_is_a_template_already():
    assert one(prompt="Where was {} born?").text == "Where was Anna Berg born?"


def test_the_last_of_several_occurrences_is_the_subject():
    request = one(prompt="Anna Berg is called Anna Berg and was born in")
    assert request.prompt == "Anna Berg is called {} and was born in"
    assert request.text == "Anna Berg is called Anna Berg and was born in"


def test_a_subject_with_braces():
    request = one(subject="f{x}", prompt="The value of f{x} is")
    assert request.prompt == "The value of {} is" and request.text == "The value of f{x} is"


@pytest.mark.parametrize("requests", [None, [], "text", {}])
def test_no_requests(requests):
    with pytest.raises(RequestError, match="non-empty list"):
        prepare(requests)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"prompt": None}, "'prompt' must be a non-empty string"),
        ({"prompt": " "}, "'prompt'"),
        ({"subject": ""}, "'subject'"),
        ({"target_new": 5}, "'target_new'"),
        ({"target_new": " "}, "'target_new'"),
        ({"subject": "anna berg"}, "does not occur"),
        ({"prompt": "Anna Berg {x} in"}, "holds braces"),
        ({"prompt": "{} and {x} in"}, "holds braces"),
        ({"prompt": "{} and {} in"}, "does not occur"),
        ({"prompt": "Anna Berg and {} and {}"}, "holds braces"),
    ],
)
def test_errors_name_the_request_and_the_field(changes, message):
    with pytest.raises(RequestError, match="request 1: .*" + message):
        prepare([GOOD, {**GOOD, **changes}])


def test_a_missing_field_and_a_request_that_is_no_dictionary():
    with pytest.raises(RequestError, match="request 0: field 'subject'"):
        prepare([{"prompt": "a b", "target_new": "c"}])
    with pytest.raises(RequestError, match="request 1: must be a dictionary, got str"):
        prepare([GOOD, "Anna"])
