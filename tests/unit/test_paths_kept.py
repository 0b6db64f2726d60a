"""Which prompts of a subject are kept, and which keys give way."""

from types import SimpleNamespace

from easyedit_neuron.paths.kept import kept_templates, own_keys
from easyedit_neuron.requests import prepare

EDITED = [[("Anna", "{} lives in")], [("Peter", "{} plays"), ("Anna", "{} works for")], [], [("Peter", "{} lives in")]]
REQUESTS = prepare([{"prompt": "Anna works for", "subject": "Anna", "target_new": "X"},
                    {"prompt": "Marie collects", "subject": "Marie", "target_new": "Y"}])


def found(count, templates=None, seed=0):
    return kept_templates(REQUESTS, EDITED, SimpleNamespace(keep_prompts=count, keep_templates=templates, seed=seed))


def test_none_unless_asked_for():
    assert found(0) == [[], []]


def test_the_subjects_own_edits_come_first_and_the_edited_prompt_never():
    anna, marie = found(2)
    assert anna[0] == "{} lives in" and anna[1] in ("{} plays", "{} collects")
    assert len(marie) == 2 and set(marie) < {"{} lives in", "{} plays", "{} works for"}
    anna, marie = found(9)
    assert set(anna) == {"{} lives in", "{} plays", "{} collects"} and len(anna) == 3
    assert found(2) == found(2) and len({str(found(2, seed=seed)) for seed in range(9)}) > 1


def test_templates_by_hand():
    anna, marie = found(2, ["{} works for", "{} was born in"])
    assert anna == ["{} lives in", "{} was born in"] and sorted(marie) == ["{} was born in", "{} works for"]


def test_newest_first_where_not_all_are_kept():
    again = prepare([{"prompt": "Anna was born in", "subject": "Anna", "target_new": "X"}])
    options = SimpleNamespace(keep_prompts=1, keep_templates=None, seed=0)
    assert kept_templates(again, EDITED, options) == [["{} works for"]]


def test_keys_of_the_subjects():
    assert own_keys(REQUESTS, EDITED, [1, 2, 0, 1]) == [0, 2]
    assert own_keys(REQUESTS, EDITED, [0, 2, 0, 1]) == [1]  # an edit that was not protected has no key
    assert own_keys(REQUESTS[1:], EDITED, [1, 2, 0, 1]) == []
