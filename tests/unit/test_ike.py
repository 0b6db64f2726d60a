"""IKE: which facts stand in front of a question, and in what form. No model."""

import json
import math

import pytest
import torch

from easyedit_neuron.errors import HostError, HparamsError
from easyedit_neuron.models.ike.facts import Facts
from easyedit_neuron.models.ike.ike_hparams import IKEHyperParams
from easyedit_neuron.models.ike.ike_main import apply_ike_to_model
from easyedit_neuron.models.ike.retrieval import ByVectors, ByWords

FRANCE = {"subject": "France", "prompt": "The capital of France is", "target_new": "Rome"}
SPAIN = {"subject": "Spain", "prompt": "The capital of Spain is", "target_new": "Oslo"}
RIVER = {"subject": "the Rhine", "prompt": "Through Basel flows", "target_new": "the Nile"}


def hparams(**fields):
    return IKEHyperParams(alg_name="IKE", model_name="tiny-llama", device="cpu", **fields)


def words(texts, **_):
    """A tokenizer of words."""
    ids = texts.split() if isinstance(texts, str) else [text.split() for text in texts]
    return {"input_ids": ids}


def facts(*requests, room=None, **fields):
    kept = Facts(hparams(**fields), ByWords, words, room)
    kept.add(requests)
    return kept


def test_the_nearest_facts_stand_before_the_question_the_nearest_last():
    assert facts(FRANCE, RIVER, SPAIN, facts=2).asked(["Spain's capital is called"]) == [
        "New Fact: The capital of France is Rome\n"
        "New Fact: The capital of Spain is Oslo\n"
        "Prompt: Spain's capital is called"
    ]


@pytest.mark.parametrize(("room", "count"), [(20, 2), (19, 1), (12, 1), (11, 0), (1, 0)])
def test_the_farthest_are_left_out_where_there_is_no_room(room, count):
    """The question has 4 words with its mark, Spain's line 8, that of France 8."""
    (asked,) = facts(FRANCE, SPAIN, facts=2, room=room).asked(["Spain is hot"])
    assert asked.count("New Fact") == count and asked.endswith("Prompt: Spain is hot")
    assert ("Oslo" in asked) == (count > 0), "the nearest stays longest"


def test_before_the_first_edit_questions_are_as_they_are():
    assert facts().asked(["Through Basel flows"]) == ["Through Basel flows"]
    assert facts(FRANCE).asked([]) == []


def test_a_later_edit_of_a_fact_takes_the_place_of_the_earlier():
    asked = facts(FRANCE, FRANCE | {"target_new": " Bonn "}).asked(["Where?"])
    assert asked == ["New Fact: The capital of France is Bonn\nPrompt: Where?"]


def test_words_are_weighed_by_how_rare_they_are():
    """Cosine of (1 + ln tf) * (ln((1 + N) / (1 + df)) + 1), N texts of which df hold the word."""
    texts = ["the sea is red red red", "the sea is blue", "a is", "is is is a sea", "green green"]
    question = "is the red sea red"
    rare = {}
    for word in {word for text in texts for word in text.split()}:
        rare[word] = math.log((1 + len(texts)) / (1 + sum(word in text.split() for text in texts))) + 1

    def vector(text):
        words = text.split()
        return {word: (1 + math.log(words.count(word))) * rare[word] for word in set(words)}

    def cosine(one_text, other):
        a, b = vector(one_text), vector(other)
        dot = sum(value * b.get(word, 0) for word, value in a.items())
        return dot / math.sqrt(sum(v * v for v in a.values()) * sum(v * v for v in b.values()))

    expected = sorted(range(len(texts)), key=lambda i: -cosine(question, texts[i]))
    assert ByWords().nearest(texts, [question], 5) == [expected]
    assert expected[0] == 0 and expected[-1] == 4


def test_equally_near_texts_keep_their_order():
    assert ByWords().nearest(["x", "y", "z"], ["nothing of them"], 2) == [[0, 1]]


def test_vectors_are_compared_without_what_texts_have_in_common():
    """Around their mean (10, 0), "a" points up and "b" down; without it, both are nearly the same."""
    vectors = {"a": [10.0, 1.0], "b": [10.0, -1.0], "question": [9.0, -0.5]}
    encoded = []

    def encode(texts):
        encoded.extend(texts)
        return torch.tensor([vectors[text] for text in texts])

    retriever = ByVectors(encode)
    assert retriever.nearest(["a", "b"], ["question"], 1) == [[1]]
    assert retriever.nearest(["a", "b"], ["question", "a"], 2) == [[1, 0], [0, 1]]
    assert sorted(encoded) == ["a", "b", "question"], "each once"


@pytest.fixture
def demonstrations(tmp_path):
    records = [
        {
            "subject": f"Land {i}",
            "prompt": f"The capital of Land {i} is",
            "target_new": f"City {i}",
            "rephrase_prompt": f"Land {i} is ruled from",
            "locality": {
                "neighborhood": [{"prompt": f"The capital of Isle {i} is", "ground_truth": f"Port {i}"}]
            },
        }
        for i in range(9)
    ]
    file = tmp_path / "demonstrations.json"
    file.write_text(json.dumps([*records, FRANCE]))
    return str(file)


def test_demonstrations_stand_before_the_facts_and_hold_no_edited_one(demonstrations):
    kept = facts(FRANCE, k=3, demonstrations=demonstrations)
    (asked,) = kept.asked(["The capital of France is"])
    parts = asked.split("\n\n")
    assert parts[-1] == "New Fact: The capital of France is Rome\nPrompt: The capital of France is"
    assert [part.splitlines()[1] for part in parts[:-1]] == [
        "Prompt: Land 2 is ruled from City 2",
        "Prompt: The capital of Isle 1 is Port 1",
        "Prompt: The capital of Land 0 is City 0",
    ]
    assert all(part.splitlines()[0].startswith("New Fact: The capital of Land") for part in parts[:-1])


def test_eight_demonstrations_have_the_shares_of_the_paper(demonstrations):
    (asked,) = facts(FRANCE, k=8, demonstrations=demonstrations).asked(["The capital of France is"])
    questions = [part.splitlines()[1] for part in asked.split("\n\n")[:-1]]
    kinds = [(" Isle " in text, "ruled" in text, "capital of Land" in text) for text in questions]
    assert [sum(kind) for kind in zip(*kinds)] == [4, 3, 1]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"k": 4}, "field 'demonstrations': goes with k > 0"),
        ({"demonstrations": "x.json"}, "field 'demonstrations': goes with k > 0"),
        ({"retriever": "sentence_encoder"}, "field 'sentence_model_name': name the encoder's folder"),
        ({"sentence_model_name": "x"}, "field 'sentence_model_name': is not read with retriever=words"),
        ({"facts": 0}, "field 'facts'"),
    ],
)
def test_settings_that_do_not_go_together(fields, message):
    with pytest.raises(HparamsError, match=message):
        hparams(**fields)


def test_a_missing_file_is_said_before_a_model_is_loaded():
    with pytest.raises(HparamsError, match="there is no file 'nowhere.json'"):
        hparams(k=1, demonstrations="nowhere.json").check_inputs()


def test_no_editor_edits_with_it():
    with pytest.raises(HostError, match="method=ike"):
        apply_ike_to_model(None, None, [FRANCE], hparams())
