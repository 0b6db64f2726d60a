"""Splits share no prompt and no subject."""

import pytest

from easyedit_neuron.data.splits import split, without
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
