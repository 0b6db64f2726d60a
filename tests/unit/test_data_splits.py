"""Splits share no prompt and no subject."""

import pytest

from easyedit_neuron import data
from easyedit_neuron.data.counterfact_choose import choose_records
from easyedit_neuron.data.splits import sample, split, without
from easyedit_neuron.errors import DataError


def request(subject, prompt="{} is in"):
    return {"subject": subject, "prompt": prompt.format(subject)}


def test_without_leaves_out_prompts_and_subjects():
    reported = [request("Paris"), {"subject": "Zoë", "prompt": "The café of Zoe\u0308  is"}]
    pool = [
        request("Rome"),
        request("paris", "where is {}?"),  # the subject, in another case
        {"subject": "X", "prompt": "the café of Zoë is"},  # the prompt, in another Unicode form and case
    ]
    assert without(pool, reported) == [request("Rome")]
    assert without(pool, []) == pool


def test_split_is_disjoint_and_repeatable():
    pool = [request(f"city {number % 40}", f"{{}} is in {number}") for number in range(100)]
    drawn, rest = split(pool, 10, seed=3)
    assert len(drawn) == 10 and (drawn, rest) == split(pool, 10, seed=3) != split(pool, 10, seed=4)
    assert not {r["subject"] for r in drawn} & {r["subject"] for r in rest}
    assert not {r["prompt"] for r in drawn} & {r["prompt"] for r in rest}
    shared = {r["subject"] for r in drawn}
    assert rest == [r for r in pool if r["subject"] not in shared], "and loses no other record"


@pytest.mark.parametrize("size", [0, 3])
def test_a_split_needs_more_records(size):
    with pytest.raises(DataError, match=f"a split of {size} needs more records than the 3"):
        split([request(name) for name in "abc"], size)


def test_counterfact_records_to_choose_on():
    """Nothing of the reported records, and rephrased by other templates of the relation."""

    def reported(subject, template, relation="P1"):
        rewrite = {"prompt": template, "subject": subject, "relation_id": relation}
        rewrite |= {"target_new": {"str": "Rome"}, "target_true": {"str": "Oslo"}}
        return {"requested_rewrite": rewrite}

    def flat(prompt, subject):
        return {"prompt": prompt, "subject": subject, "target_new": "Rome", "rephrase_prompt": "around it is"}

    reports = [
        reported("Anna", "{} lives in"),
        reported("Otto", "{} has a home in"),
        reported("Ida", "{} plays", "P2"),
    ]
    pool = [
        flat("Ulf lives in", "Ulf"),
        flat("Anna lives in", "Anna"),  # a reported subject
        flat("Ulf plays", "Ulf"),  # no other template of its relation
        flat("Ulf eats", "Ulf"),  # of no reported relation
    ]
    (record,) = choose_records(pool, reports)
    assert record["prompt"] == "Ulf lives in" and record["target_new"] == "Rome"
    assert record["paraphrase_prompts"] == ["Ulf has a home in"] == [record["rephrase_prompt"]]
    (request,) = data.load([record], "counterfact", rephrasings="all")
    assert request["rephrase_prompt"] == ["Ulf has a home in"]


def test_a_sample_is_the_same_for_the_same_seed():
    numbers = sample(1000, 50, 7)
    assert numbers == sample(1000, 50, 7) != sample(1000, 50, 8)
    assert numbers == sorted(set(numbers)) and numbers[0] >= 0 and numbers[-1] < 1000
    assert max(numbers) > 500, "not the first ones"
    assert sample(3, 3, 0) == [0, 1, 2]
    with pytest.raises(DataError, match="a sample of 4 needs more records than the 3"):
        sample(3, 4, 0)
