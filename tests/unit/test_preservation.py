"""Which other prompts of a subject are kept, with which objects, and which keys give way."""

from types import SimpleNamespace

from easyedit_neuron.edits.request import prepare
from easyedit_neuron.locate_then_edit.preservation import (
    PreservedPrompt,
    preserved_prompts,
    superseded_key_indices,
)

EDITED = [
    [("Anna", "{} lives in", " Oslo")],
    [("Peter", "{} plays", " golf"), ("Anna", "{} works for", " Ayx")],
    [],
    [("Peter", "{} lives in", " Rome")],
]
REQUESTS = prepare(
    [
        {"prompt": "Anna works for", "subject": "Anna", "target_new": "X"},
        {"prompt": "Marie collects", "subject": "Marie", "target_new": "Y"},
    ]
)


def options(count=0, templates=None, seed=0, edits=False):
    return SimpleNamespace(keep_prompts=count, keep_templates=templates, seed=seed, keep_edits=edits)


def prompts_of(*args, **named):
    """The templates; with objects as pairs."""
    preserved = preserved_prompts(REQUESTS, EDITED, options(*args, **named))
    return [
        [prompt.template if prompt.target is None else tuple(prompt) for prompt in prompts]
        for prompts in preserved
    ]


def test_none_unless_asked_for():
    assert prompts_of(0) == [[], []]


def test_the_subjects_own_edits_come_first_and_the_edited_prompt_never():
    anna, marie = prompts_of(2)
    assert anna[0] == "{} lives in" and anna[1] in ("{} plays", "{} collects")
    assert len(marie) == 2 and set(marie) < {"{} lives in", "{} plays", "{} works for"}
    anna, marie = prompts_of(9)
    assert set(anna) == {"{} lives in", "{} plays", "{} collects"} and len(anna) == 3
    assert prompts_of(2) == prompts_of(2) and len({str(prompts_of(2, seed=seed)) for seed in range(9)}) > 1


def test_templates_by_hand():
    anna, marie = prompts_of(2, ["{} works for", "{} was born in"])
    assert anna == ["{} lives in", "{} was born in"] and sorted(marie) == ["{} was born in", "{} works for"]


def test_newest_first_where_not_all_are_kept():
    again = prepare([{"prompt": "Anna was born in", "subject": "Anna", "target_new": "X"}])
    assert preserved_prompts(again, EDITED, options(1)) == [[PreservedPrompt("{} works for")]]


def test_earlier_edits_with_their_objects():
    assert prompts_of(edits=True) == [[("{} lives in", " Oslo")], []]
    anna, marie = prompts_of(1, edits=True)
    assert (
        anna[0] == ("{} lives in", " Oslo")
        and anna[1] in ("{} plays", "{} collects")
        and len(anna) == 2
        and len(marie) == 1
    )


def test_the_newest_object_of_a_prompt_counts():
    edited = [*EDITED, [("Anna", "{} lives in", " Bergen")]]
    assert preserved_prompts(REQUESTS[:1], edited, options(edits=True)) == [
        [PreservedPrompt("{} lives in", " Bergen")]
    ]


def test_requests_of_one_batch_know_each_other():
    both = prepare(
        [
            {"prompt": "Ida plays", "subject": "Ida", "target_new": "golf"},
            {"prompt": "Ida speaks", "subject": "Ida", "target_new": "Thai"},
            REQUESTS[1].raw,
        ]
    )
    assert preserved_prompts(both, [], options(edits=True)) == [
        [PreservedPrompt("{} speaks", " Thai")],
        [PreservedPrompt("{} plays", " golf")],
        [],
    ]


def test_keys_of_the_subjects():
    assert superseded_key_indices(REQUESTS, EDITED, [1, 2, 0, 1], True) == [0, 2]
    # an edit that was not protected has no key
    assert superseded_key_indices(REQUESTS, EDITED, [0, 2, 0, 1], True) == [1]
    assert superseded_key_indices(REQUESTS[1:], EDITED, [1, 2, 0, 1], True) == []


def test_keys_of_the_same_facts():
    """Without keeping the subject, the same prompt of the same subject alone."""
    assert superseded_key_indices(REQUESTS, EDITED, [1, 2, 0, 1], False) == [
        sum([1, 2, 0, 1][:step]) + place
        for step, facts in enumerate(EDITED)
        for place, fact in enumerate(facts)
        if [1, 2, 0, 1][step] and fact[:2] in {request.fact[:2] for request in REQUESTS}
    ]
    other = [[("Anna", "{} plays", " golf")], [("Anna", "{} speaks", " Thai"), ("Ida", "{} plays", " golf")]]
    request = prepare([{"prompt": "Anna plays", "subject": "Anna", "target_new": "chess"}])
    assert superseded_key_indices(request, other, [1, 2], False) == [0]
    assert superseded_key_indices(request, other, [1, 2], True) == [0, 1]
