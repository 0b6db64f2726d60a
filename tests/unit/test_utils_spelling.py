"""Texts of requests: blanks at their ends, {} for the subject, spellings that look alike."""

import logging
import unicodedata

import pytest

from easyedit_neuron import data
from easyedit_neuron.edits.request import prepare
from easyedit_neuron.errors import RequestError
from easyedit_neuron.evaluation.sections import sections
from easyedit_neuron.host.prepare import prepare_requests
from easyedit_neuron.utils.spelling import last_occurrence, spelled_as_in, tidied, tidied_all

CLEAN = {
    "prompt": "Anna Berg was born in",
    "subject": "Anna Berg",
    "target_new": "Paris",
    "ground_truth": "Rome",
    "rephrase_prompt": ["The birth place of Anna Berg is", "Anna Berg comes from"],
    "locality": {"near": {"prompt": "Oslo is in", "ground_truth": "Norway"}},
    "portability": {"hop": {"prompt": ["Anna Berg speaks"], "ground_truth": ["French"]}},
}
DIRTY = {
    "prompt": "Anna Berg was born in \t",
    "subject": " Anna Berg\u00a0",
    "target_new": " Paris\n",
    "ground_truth": "Rome ",
    "rephrase_prompt": ["The birth place of {} is ", "Anna Berg comes from "],
    "locality": {"near": {"prompt": "Oslo is in ", "ground_truth": " Norway"}},
    "portability": {"hop": {"prompt": ["Anna Berg speaks "], "ground_truth": ["French\r\n"]}},
}


def test_a_clean_request_is_the_same_object():
    assert tidied(CLEAN) is CLEAN
    assert tidied_all([CLEAN, CLEAN])[1] is CLEAN


def test_blanks_and_subject():
    before = repr(DIRTY)
    assert tidied(DIRTY) == CLEAN and repr(DIRTY) == before
    assert tidied(tidied(DIRTY)) == CLEAN


def test_line_ends_behind_a_prompt_may_be_meant():
    assert tidied({"prompt": "Where?\n", "target_new": "Oslo"})["prompt"] == "Where?\n"


def test_what_is_empty_stays_for_the_error():
    assert tidied({"prompt": " ", "target_new": "\n", "subject": ""}) == {
        "prompt": " ",
        "target_new": "\n",
        "subject": "",
    }
    assert tidied({"prompt": None, "target_new": 3, "locality": None}) == {
        "prompt": None,
        "target_new": 3,
        "locality": None,
    }


@pytest.mark.parametrize(
    "prompt, subject, expected",
    [
        ("{} was born in", "Anna Berg", "Anna Berg was born in"),
        ("{} was made by Cook in", "C", "C was made by Cook in"),  # C is in Cook, but no word there
        ("In Python {} is a dictionary, said Anna Berg, who lives in", "Anna Berg", None),
        ("{} and {} are", "Anna Berg", None),
        ("The {name} of Anna Berg is", "Anna Berg", None),
    ],
)
def test_braces(prompt, subject, expected):
    request = {"prompt": prompt, "subject": subject, "target_new": "x"}
    assert tidied(request)["prompt"] == (expected or prompt)
    if expected is None:
        with pytest.raises(RequestError, match="holds braces|does not occur"):
            prepare([request])
    else:
        (prepared,) = prepare([request])
        assert prepared.text == expected
        assert prepared.prompt == prompt


def test_the_last_word_of_its_own():
    assert last_occurrence("C was made by Cook", "C") == 0
    assert last_occurrence("Anna, says Anna Berg", "Anna") == 11
    assert last_occurrence("Annas", "Anna") == 0 and last_occurrence("Oslo", "Anna") == -1


LOOK_ALIKE = [
    (unicodedata.normalize("NFC", "Zoë Núñez"), unicodedata.normalize("NFD", "Zoë Núñez")),
    (unicodedata.normalize("NFD", "Zoë Núñez"), unicodedata.normalize("NFC", "Zoë Núñez")),
    ("Côte d’Ivoire", "Côte d'Ivoire"),
    ("Anna\u00a0Berg", "Anna Berg"),
    ("Saint‑Denis", "Saint-Denis"),
    ("ﬁsh", "fish"),
]


@pytest.mark.parametrize("there, given", LOOK_ALIKE)
def test_spellings_that_look_alike(there, given):
    """The subject is spelled as in the prompt, whose tokens are edited; nothing around it is taken."""
    text = f"Today {there} says that {there} was born in"
    assert spelled_as_in(text, given) == there
    request = {"prompt": text, "subject": given, "target_new": "Paris"}
    (prepared,) = prepare([request])
    assert prepared.subject == there and prepared.text == text
    assert prepared.prompt == f"Today {there} says that {{}} was born in"


def test_an_error_that_shows_the_difference():
    for prompt, subject, said in (
        ("anna berg was born in", "Anna Berg", "upper and lower case"),
        ("Anna Bérg was born in", "Anna Berg", r"by code points: 'Anna Berg' in 'Anna B\\xe9rg was"),
    ):
        request = {"prompt": prompt, "subject": subject, "target_new": "Paris"}
        with pytest.raises(RequestError) as problem:
            prepare([request])
        assert said.replace("\\\\", "\\") in str(problem.value)
        with pytest.raises(RequestError) as problem:
            prepare_requests(prompt, "Paris", subject=subject)
        assert said.replace("\\\\", "\\") in str(problem.value)


def test_editing_and_measuring_read_the_same(tmp_path, caplog):
    (prepared,) = prepare([DIRTY])
    assert (prepared.text, prepared.subject, prepared.target_new) == (CLEAN["prompt"], "Anna Berg", " Paris")
    assert prepared.ground_truth == " Rome" and prepared.raw == CLEAN
    assert sections([DIRTY]) == sections([CLEAN])
    with caplog.at_level(logging.WARNING):
        (made,) = prepare_requests(
            "{} was born in ", "Paris ", "Rome", subject=" Anna Berg", rephrase_prompts="{} comes from "
        )
    assert made["prompt"] == CLEAN["prompt"] and made["rephrase_prompt"] == "Anna Berg comes from"
    assert "1 request(s) (0) are read without blanks" in caplog.text
    assert "prompt 'Anna Berg was born in'" in caplog.text


def test_a_file_with_blanks(caplog):
    records = [{"prompt": "Anna Berg was born in ", "subject": "Anna Berg ", "target_new": " Paris"}]
    (request,) = data.load(records, shape="knowedit")
    assert (request["prompt"], request["subject"], request["target_new"]) == (
        "Anna Berg was born in",
        "Anna Berg",
        "Paris",
    )
    assert "are read without blanks" in caplog.text
