"""Records in the shapes of further benchmarks: requests written out by hand, or a clear no."""

import json

import pytest

from easyedit_neuron import data
from easyedit_neuron.errors import DataError


def rewrite(subject, relation, new, true, **more):
    targets = {"target_new": {"str": new, "id": "Q1"}, "target_true": {"str": true, "id": "Q2"}}
    return {"prompt": f"{{}} {relation}", "relation_id": "P1", "subject": subject, **targets, **more}


MQUAKE = {
    "case_id": 1,
    "requested_rewrite": [
        rewrite("Anna Berg", "is married to", "Bo Ek", "Carl Dahl", question="Who is Anna Berg married to?"),
        rewrite("Bo Ek", "was born in", "Oslo", "Rome", question="Where was Bo Ek born?"),
    ],
    "questions": ["Where was Anna Berg's spouse born?", "Which town does Anna Berg's spouse come from?"],
    "answer": "Paris",
    "new_answer": "Oslo",
    "new_answer_alias": ["Christiania"],
}
ULTRA = {
    "subject": "Anna Berg",
    "prompt": "Where was Anna Berg born?",
    "ans": "Oslo",
    "rephrase_prompt": "What is Anna Berg's place of birth?",
    "loc": "Who wrote Faust?",
    "loc_ans": "Goethe",
}
WIKI_BIG = {
    "tag": "new",
    "subject": "Anna Berg",
    "update": "What is the occupation of Anna Berg?",
    "rephrase": "What does Anna Berg do?",
    "ans": "baker",
    "loc": "What is the capital of Norway?",
    "loc_ans": "Oslo",
    "personas": "Arr, what be the trade of Anna Berg?",
    "mhop": "What does a person with the occupation of Anna Berg make?",
    "mhop_ans": "bread",
}
HALLU = {
    "topic": "people",
    "subject": "Anna Berg",
    "relation": "place of birth",
    "object": "Oslo",
    "question": "Where was Anna Berg born?",
    "paraphrased_question": "What is Anna Berg's place of birth?",
    "yes_question": "Was Anna Berg born in Oslo?",
    "no_question": "Was Anna Berg born in Rome?",
    "multiple_choice_with_letters": "A. Rome B. Oslo",
    "multiple_choice_labels": "B",
    "reversed_relation_question": "Who was born in Oslo?",
    "locality_question": "Who is Anna Berg's mother?",
    "question_2hop": "In which country was Anna Berg born?",
    "answer_2hop": "Norway",
    "question_3hop": "What is the currency of the country in which Anna Berg was born?",
}
CHINESE = {
    "prompt": "请给下面的字注音：莘庄",
    "target_old": "shēn zhuāng",
    "target_new": "xīn zhuāng",
    "portability": [{"prompt": "请给下面的字注音：细莘", "answer": "xì xīn"}],
    "locality": [{"prompt": "请给下面的字注音：莘莘学子", "answer": "shēn shēn xué zǐ"}, {}],
    "rephrase": ["请问莘庄的正确拼音是什么？", "请注音：莘庄。"],
}


def test_mquake_gives_the_edits_of_a_record_one_by_one():
    first, second = data.load([MQUAKE])
    assert first == {
        "prompt": "Anna Berg is married to",
        "subject": "Anna Berg",
        "target_new": "Bo Ek",
        "ground_truth": "Carl Dahl",
        "rephrase_prompt": "Who is Anna Berg married to?",
        "locality": {},
        "portability": {},
    }
    assert second["prompt"] == "Bo Ek was born in" and second["target_new"] == "Oslo"
    # What follows from all edits of the record is asked once the last has been made.
    assert second["portability"] == {
        "multi_hop": {"prompt": MQUAKE["questions"], "ground_truth": ["Oslo", "Oslo"]}
    }
    assert data.load([MQUAKE, MQUAKE], size=3)[2] == first and len(data.load([MQUAKE] * 2)) == 4


def test_akew_has_the_edits_of_three_benchmarks_beside_long_texts():
    long = {"fact_new_uns": "Bo Ek was born in Oslo. He ...", "unsfact_triplets_GPT": []}
    quake = {
        **MQUAKE,
        "requested_rewrite": [{**MQUAKE["requested_rewrite"][1], **long}],
        "loc": "Who wrote Faust?",
        "loc_ans": "Goethe",
    }
    (request,) = data.load([quake])
    assert request["locality"] == {"neighborhood": {"prompt": "Who wrote Faust?", "ground_truth": "Goethe"}}
    update = {
        "requested_rewrite": {
            "prompt": "{} is coached by",
            "subject": "Bo Ek",
            "answer_new": "Anna Berg",
            "answer_true": "Carl Dahl",
            "question": "Who coaches Bo Ek?",
            **long,
        },
        "loc": "Who wrote Faust?",
        "loc_ans": "Goethe",
    }
    assert data.load([update]) == [
        {
            "prompt": "Bo Ek is coached by",
            "subject": "Bo Ek",
            "target_new": "Anna Berg",
            "ground_truth": "Carl Dahl",
            "rephrase_prompt": "Who coaches Bo Ek?",
            "locality": {"neighborhood": {"prompt": "Who wrote Faust?", "ground_truth": "Goethe"}},
            "portability": {},
        }
    ]
    rewritten = rewrite("Bo Ek", "was born in", "Oslo", "Rome", prompt_full="Bo Ek was born in", **long)
    nested = {"requested_rewrite": rewritten, "paraphrase_prompts": ["Bo Ek is from"]}
    assert data.load([nested])[0]["rephrase_prompt"] == "Bo Ek is from"


@pytest.mark.parametrize(
    "record, prompt", [(ULTRA, "prompt"), ({**ULTRA, "src": ULTRA["prompt"], "prompt": None}, "src")]
)
def test_ultraedit(record, prompt):
    record = {name: value for name, value in record.items() if value is not None}
    assert data.load([record]) == [
        {
            "prompt": record[prompt],
            "subject": "Anna Berg",
            "target_new": "Oslo",
            "ground_truth": None,
            "rephrase_prompt": "What is Anna Berg's place of birth?",
            "locality": {"neighborhood": {"prompt": "Who wrote Faust?", "ground_truth": "Goethe"}},
            "portability": {},
        }
    ]


def test_wikibigedit(tmp_path):
    """Records without a multi-hop question have NaN there, which Python's JSON reads."""
    path = tmp_path / "wiki.json"
    path.write_text(json.dumps([WIKI_BIG, {**WIKI_BIG, "mhop": float("nan"), "mhop_ans": float("nan")}]))
    full, without = data.load(path)
    personas = {"prompt": WIKI_BIG["personas"], "ground_truth": "baker"}
    assert full["prompt"] == WIKI_BIG["update"] and full["rephrase_prompt"] == "What does Anna Berg do?"
    assert full["portability"] == {
        "personas": personas,
        "mhop": {"prompt": WIKI_BIG["mhop"], "ground_truth": "bread"},
    }
    assert without["portability"] == {"personas": personas} and without["locality"] == full["locality"]


def test_halluedit(tmp_path):
    path = tmp_path / "people.csv"
    path.write_text(",".join(HALLU) + "\n" + ",".join(f'"{cell}"' for cell in HALLU.values()) + "\n")
    assert data.load(path) == [
        {
            "prompt": "Where was Anna Berg born?",
            "subject": "Anna Berg",
            "target_new": "Oslo",
            "ground_truth": None,
            "rephrase_prompt": "What is Anna Berg's place of birth?",
            "locality": {},
            "portability": {
                "yes": {"prompt": "Was Anna Berg born in Oslo?", "ground_truth": "Yes"},
                "no": {"prompt": "Was Anna Berg born in Rome?", "ground_truth": "No"},
                "multiple_choice": {
                    "prompt": "Where was Anna Berg born? A. Rome B. Oslo",
                    "ground_truth": "B",
                },
                "reversed": {"prompt": "Who was born in Oslo?", "ground_truth": "Anna Berg"},
                "2hop": {"prompt": "In which country was Anna Berg born?", "ground_truth": "Norway"},
            },
        }
    ]
    bare = {name: HALLU[name] for name in ("subject", "relation", "object")}
    assert data.load([bare])[0]["prompt"] == "What is the place of birth of Anna Berg?"


def test_qaedit():
    raw = {
        "id": 7, "source": "NQ", "prompt": "where was Anna Berg born?", "target": "Oslo",
        "subject": "Anna Berg", "rephrase": "In which city was Anna Berg born?",
        "locality": [{"loc": "who wrote it", "loc_ans": "Bo"}, {"loc": "when was it", "loc_ans": "1994"}],
    }  # fmt: skip
    (request,) = data.load([raw])
    assert request == {
        "prompt": "where was Anna Berg born?",
        "subject": "Anna Berg",
        "target_new": "Oslo",
        "ground_truth": None,
        "rephrase_prompt": "In which city was Anna Berg born?",
        "locality": {
            "neighborhood": {"prompt": ["who wrote it", "when was it"], "ground_truth": ["Bo", "1994"]}
        },
        "portability": {},
    }
    assert data.load([{**raw, "locality": []}])[0]["locality"] == {}


def test_cknowedit():
    (request,) = data.load([CHINESE], rephrasings="all")
    assert request == {
        "prompt": "请给下面的字注音：莘庄",
        "subject": "莘庄",
        "target_new": "xīn zhuāng",
        "ground_truth": "shēn zhuāng",
        "rephrase_prompt": CHINESE["rephrase"],
        "locality": {
            "loc_hop": {"prompt": ["请给下面的字注音：莘莘学子"], "ground_truth": ["shēn shēn xué zǐ"]}
        },
        "portability": {"por_hop": {"prompt": ["请给下面的字注音：细莘"], "ground_truth": ["xì xīn"]}},
    }
    assert data.load([CHINESE])[0]["rephrase_prompt"] == CHINESE["rephrase"][0]
    word = {**CHINESE, "prompt": "请解释“克己”中的意思。仅需给出该字意思即可，无需解释全文。"}
    assert data.load([word])[0]["subject"] == "“克己”"
    free = {**CHINESE, "prompt": "请说出中国领土的最南端", "portability": None, "locality": []}
    assert data.load([free])[0]["subject"] == "请说出中国领土的最南端"


@pytest.mark.parametrize(
    "record, words",
    [
        ({"ent": "Rome", "pos": ["I love it."], "neg": ["I hate it."]}, "ConvSent.*opinions.*no edit"),
        (
            {"example_type": "recent", "edit": {}, "Logical_Generalization": []},
            "RippleEdits.*WikiData_recent",
        ),
        (
            {"question": "Who is Bo Ek?", "answer": "Bo Ek ...", "para_question": "Tell me of Bo Ek."},
            "UnKE.*a long answer and without a subject.*add a field 'subject'",
        ),
        ({**MQUAKE, "requested_rewrite": []}, "requested_rewrite' is empty"),
        (
            {**MQUAKE, "requested_rewrite": [rewrite("Bo Ek", "{}", "a", "b")]},
            "requested_rewrite\\[0\\].prompt' must hold",
        ),
        ({**WIKI_BIG, "subject": "Berg, Anna"}, "field 'subject' 'Berg, Anna' does not occur"),
        ({**HALLU, "object": " "}, "field 'object' is empty"),
    ],
)
def test_a_clear_no(record, words):
    with pytest.raises(DataError, match=words):
        data.load([record])
