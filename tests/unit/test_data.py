import collections
import copy
import json
import logging
import os
from pathlib import Path

import pytest

from easyedit_neuron import data, resources
from easyedit_neuron.errors import DataError

COUNTERFACT = {
    "case_id": 0,
    "prompt": "Anna Berg was born in",
    "target_new": "Paris",
    "subject": "Anna Berg",
    "ground_truth": "Rome",
    "rephrase_prompt": "The birthplace of Anna Berg is",
    "locality_prompt": "Carl Dahl was born in",
    "locality_ground_truth": "Rome",
}
ZSRE = {
    "subject": "Anna Berg",
    "src": "Where was Anna Berg born?",
    "pred": "Oslo",
    "rephrase": "What is the birthplace of Anna Berg?",
    "alt": "Paris",
    "answers": ["Rome", "Roma"],
    "loc": "nq question: who wrote it",
    "loc_ans": "Nobody",
    "portability": {
        "Recalled Relation": "x",
        "New Question": "In which country was Anna Berg born?",
        "New Answer": "France",
    },
}
NESTED = {
    "case_id": 1,
    "requested_rewrite": {
        "prompt": "{} was born in",
        "subject": "Anna Berg",
        "target_new": {"str": "Paris", "id": "Q1"},
        "target_true": {"str": "Rome", "id": "Q2"},
    },
    "paraphrase_prompts": ["Text. Anna Berg is from", "Anna Berg comes from"],
    "neighborhood_prompts": ["Carl Dahl was born in", "Eva Falk was born in"],
    "portability": {"New Question": "Anna Berg was born in the country of", "New Answer": "France"},
}
KNOWEDIT = {
    "subject": "Anna Berg",
    "prompt": "Anna Berg was born in",
    "target_new": "Paris",
    "ground_truth": ["Rome", "Roma"],
    "rephrase_prompt": "Anna Berg is from",
    "portability": {
        "Reasoning": [
            {"prompt": "Country of birth of Anna Berg:", "ground_truth": [["France", "FR"], ["Gaul"]]}
        ],
        "Logical_Generalization": [],
        "Subject_Aliasing": [{"prompt": "A. Berg was born in", "ground_truth": ""}],
    },
    "locality": {
        "Relation_Specificity": [
            {"prompt": "Anna Berg's job is", "ground_truth": ["baker"]},
            {"prompt": "Anna Berg's pet is", "ground_truth": [[]]},
            {"prompt": "Anna Berg's hobby is", "ground_truth": [[], ["chess"]]},
        ],
        "Forgetfulness": None,
        "Neighborhood": [{"prompt": "Carl Dahl was born in", "ground_truth": "Rome"}],
    },
}
CORE = {
    "prompt": "Anna Berg was born in",
    "subject": "Anna Berg",
    "target_new": "Paris",
    "ground_truth": "Rome",
}


def write(tmp_path, content, name="edits.json"):
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_counterfact(tmp_path):
    assert data.load(write(tmp_path, [COUNTERFACT])) == [
        {
            **CORE,
            "rephrase_prompt": "The birthplace of Anna Berg is",
            "locality": {"neighborhood": {"prompt": "Carl Dahl was born in", "ground_truth": "Rome"}},
            "portability": {},
        }
    ]


def test_zsre(tmp_path):
    assert data.load(write(tmp_path, [ZSRE])) == [
        {
            **CORE,
            "prompt": "Where was Anna Berg born?",
            "rephrase_prompt": "What is the birthplace of Anna Berg?",
            "locality": {"neighborhood": {"prompt": "nq question: who wrote it", "ground_truth": "Nobody"}},
            "portability": {
                "one_hop": {"prompt": "In which country was Anna Berg born?", "ground_truth": "France"}
            },
        }
    ]


def test_nested_counterfact(tmp_path):
    assert data.load(write(tmp_path, [NESTED])) == [
        {
            **CORE,
            "rephrase_prompt": "Text. Anna Berg is from",
            "locality": {
                "neighborhood": {
                    "prompt": ["Carl Dahl was born in", "Eva Falk was born in"],
                    "ground_truth": ["Rome", "Rome"],
                }
            },
            "portability": {
                "one_hop": {"prompt": "Anna Berg was born in the country of", "ground_truth": "France"}
            },
        }
    ]


def test_knowedit_odd_shapes(tmp_path):
    assert data.load(write(tmp_path, [KNOWEDIT])) == [
        {
            **CORE,
            "rephrase_prompt": "Anna Berg is from",
            "portability": {
                "reasoning": {"prompt": ["Country of birth of Anna Berg:"], "ground_truth": ["France"]}
            },
            "locality": {
                "Relation_Specificity": {
                    "prompt": ["Anna Berg's job is", "Anna Berg's hobby is"],
                    "ground_truth": ["baker", "chess"],
                },
                "Neighborhood": {"prompt": ["Carl Dahl was born in"], "ground_truth": ["Rome"]},
            },
        }
    ]


def test_knowedit_without_truth_and_probes(tmp_path):
    bare = {name: KNOWEDIT[name] for name in ("subject", "prompt", "target_new")}
    expected = {**CORE, "ground_truth": None, "locality": {}, "portability": {}}
    for extra in ({}, {"ground_truth": ""}, {"ground_truth": []}, {"locality": {}, "portability": None}):
        assert data.load(write(tmp_path, [{**bare, **extra}])) == [expected]
    wikibio = {"concept": "Anna Berg", "text": "Anna Berg was born in", "labels": "Paris", "locality": {}}
    assert data.load(write(tmp_path, [wikibio])) == [expected]


def test_given_shape_wins_over_detection(tmp_path):
    path = write(tmp_path, [COUNTERFACT])
    assert data.load(path, shape="knowedit")[0]["locality"] == {}
    with pytest.raises(DataError, match="'src' is missing"):
        data.load(path, shape="zsre")


class KnowEditDataset:
    """EasyEdit's class gives such items."""

    def __init__(self, *items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


def test_lists_and_datasets_in_place_of_a_file(tmp_path):
    for record in (COUNTERFACT, ZSRE, NESTED, KNOWEDIT):
        assert data.load([record]) == data.load(write(tmp_path, [record]))
    item = {
        **CORE,
        "portability_r": KNOWEDIT["portability"]["Reasoning"],
        "portability_s": None,
        "portability_l": [],
        "locality_rs": KNOWEDIT["locality"]["Relation_Specificity"],
        "locality_f": None,
    }
    (request,) = data.load(KnowEditDataset(item))
    expected = data.load(write(tmp_path, [KNOWEDIT]))[0]
    assert request == {
        **{name: expected[name] for name in (*CORE, "portability")},
        "locality": {"Relation_Specificity": expected["locality"]["Relation_Specificity"]},
    }
    with pytest.raises(DataError, match="KnowEditDataset: record 1: field 'subject'"):
        data.load(KnowEditDataset(item, {**item, "subject": "Bo Ek"}))
    with pytest.raises(DataError, match="2 edits requested, the file has 1"):
        data.load(KnowEditDataset(item), size=2)


@pytest.mark.parametrize(
    "source, part",
    [
        (KnowEditDataset(), "no records"),
        ({"prompt": "x"}, "not dict"),
        (7, "not int"),
        (iter([COUNTERFACT]), "not list_iterator"),
        ([{**CORE, "cond": "x", "subject": "x"} | {"locality_prompt": "x"}], "subject"),
        (
            [{name: CORE[name] for name in ("prompt", "target_new")} | {"cond": "x"}],
            "leaves it out.*JSON file",
        ),
    ],
)
def test_bad_lists_and_datasets(source, part):
    with pytest.raises(DataError, match=part):
        data.load(source)


def without(record, *trail):
    changed = copy.deepcopy(record)
    place = changed
    for name in trail[:-1]:
        place = place[name]
    del place[trail[-1]]
    return changed


@pytest.mark.parametrize(
    "good, record, field",
    [
        (COUNTERFACT, without(COUNTERFACT, "target_new"), "target_new"),
        (COUNTERFACT, without(COUNTERFACT, "locality_ground_truth"), "locality_ground_truth"),
        (COUNTERFACT, {**COUNTERFACT, "prompt": ["x"]}, "prompt"),
        (COUNTERFACT, {**COUNTERFACT, "prompt": "  "}, "prompt"),
        (COUNTERFACT, {**COUNTERFACT, "target_new": ""}, "target_new"),
        (COUNTERFACT, {**COUNTERFACT, "target_new": 5}, "target_new"),
        (COUNTERFACT, {**COUNTERFACT, "subject": "Bo Ek"}, "subject"),
        (COUNTERFACT, {**COUNTERFACT, "ground_truth": {"a": 1}}, "ground_truth"),
        (ZSRE, without(ZSRE, "alt"), "alt"),
        (ZSRE, without(ZSRE, "portability", "New Answer"), "portability.New Answer"),
        (NESTED, without(NESTED, "requested_rewrite", "target_true"), "requested_rewrite.target_true"),
        (NESTED, {**NESTED, "requested_rewrite": "x"}, "requested_rewrite"),
        (
            NESTED,
            {**NESTED, "requested_rewrite": {**NESTED["requested_rewrite"], "prompt": "Anna"}},
            "requested_rewrite.prompt",
        ),
        (NESTED, {**NESTED, "paraphrase_prompts": ["a", 3]}, "paraphrase_prompts[1]"),
        (
            KNOWEDIT,
            without(KNOWEDIT, "locality", "Neighborhood", 0, "prompt"),
            "locality.Neighborhood[0].prompt",
        ),
        (KNOWEDIT, {**KNOWEDIT, "locality": []}, "locality"),
        (KNOWEDIT, {**KNOWEDIT, "locality": {"Forgetfulness": {"prompt": "x"}}}, "locality.Forgetfulness"),
        (KNOWEDIT, {**KNOWEDIT, "locality": {"Forgetfulness": ["x"]}}, "locality.Forgetfulness[0]"),
        (COUNTERFACT, 7, "mapping"),
    ],
)
def test_bad_record_names_file_record_and_field(tmp_path, good, record, field):
    path = write(tmp_path, [good, record])
    with pytest.raises(DataError) as error:
        data.load(path)
    message = str(error.value)
    assert field in message and "record 1" in message and str(path) in message


def test_skip_is_logged_and_counted(tmp_path, caplog):
    path = write(tmp_path, [COUNTERFACT, {**COUNTERFACT, "subject": "Bo Ek"}, COUNTERFACT])
    with caplog.at_level(logging.WARNING):
        assert len(data.load(path, invalid="skip", size=2)) == 2
    assert "record 1" in caplog.text
    with pytest.raises(DataError, match="3 edits requested, the file has 2 .1 invalid"):
        data.load(path, invalid="skip", size=3)


@pytest.mark.parametrize(
    "content, part",
    [
        ("[{", "not valid JSON.*line 1"),
        ('{"a": 1}', "list of records"),
        ("[]", "no records"),
        ("[3]", "record 0"),
        ('[{"question": "x"}]', "unknown shape.*question"),
    ],
)
def test_bad_files(tmp_path, content, part):
    with pytest.raises(DataError, match=part) as error:
        data.load(write(tmp_path, content))
    assert "edits.json" in str(error.value)


def test_not_utf8(tmp_path):
    path = tmp_path / "edits.json"
    path.write_bytes(b'["\xff"]')
    with pytest.raises(DataError, match="not UTF-8"):
        data.load(path)


@pytest.mark.parametrize("size", [0, -1, True, 1.5, "3"])
def test_bad_size(tmp_path, size):
    with pytest.raises(DataError, match="size"):
        data.load(write(tmp_path, [COUNTERFACT]), size=size)


def test_unknown_names(tmp_path):
    with pytest.raises(DataError, match="did you mean 'tiny-world'"):
        data.load("tinyworld")
    with pytest.raises(DataError, match="did you mean 'counterfact'"):
        data.load(write(tmp_path, [COUNTERFACT]), shape="countefact")
    with pytest.raises(DataError, match="invalid"):
        data.load(write(tmp_path, [COUNTERFACT]), invalid="ignore")
    with pytest.raises(DataError, match="ask for fewer"):
        data.load(write(tmp_path, [COUNTERFACT]), size=2)


def test_shipped_world_layout(tmp_path, monkeypatch):
    monkeypatch.setattr(resources, "ASSETS_DIR", tmp_path)
    with pytest.raises(DataError, match="install again"):
        data.load("tiny-world")
    world = tmp_path / "tiny-world"
    world.mkdir()
    write(world, [KNOWEDIT, KNOWEDIT], "edits_knowedit.json")
    write(world, [COUNTERFACT], "edits_counterfact.json")
    write(
        world,
        [{"prompt": "p", "ground_truth": "g", "subject": "s", "relation": "r", "more": 1}],
        "retained.json",
    )
    (world / "text_train.txt").write_text("One.\n\n Two. \n")
    assert len(data.load("tiny-world")) == 2
    assert "neighborhood" in data.load("tiny-world", shape="counterfact", size=1)[0]["locality"]
    with pytest.raises(DataError, match="does not come in the shape 'zsre'"):
        data.load("tiny-world", shape="zsre")
    assert data.retained("tiny-world") == [
        {"prompt": "p", "ground_truth": "g", "subject": "s", "relation": "r"}
    ]
    rome = {
        "known_id": 0,
        "prompt": "p",
        "attribute": "g",
        "subject": "s",
        "relation_id": "P1",
        "template": "{}",
    }
    write(world, [rome], "retained.json")
    assert data.retained("tiny-world") == [
        {"prompt": "p", "ground_truth": "g", "subject": "s", "relation": "P1"}
    ]
    assert data.text("tiny-world", "train") == ["One.", "Two."]
    with pytest.raises(DataError, match="text_heldout.txt"):
        data.text("tiny-world", "heldout")
    with pytest.raises(DataError, match="did you mean 'train'"):
        data.text("tiny-world", "trian")


def test_generation_prompts_are_no_rephrasings(tmp_path, caplog):
    """Only in files of flat CounterFact that have both kinds."""
    raw = [COUNTERFACT | {"case_id": number} for number in range(4)]
    subject = COUNTERFACT["subject"]
    raw[1]["rephrase_prompt"] = f"It rained all day. {subject} is"
    path = write(tmp_path, raw)
    requests = data.load(path)
    assert [request.get("rephrase_prompt") for request in requests] == [
        None,
        f"It rained all day. {subject} is",
        None,
        None,
    ]
    probe = {"prompt": COUNTERFACT["rephrase_prompt"], "ground_truth": COUNTERFACT["target_new"]}
    assert requests[0]["portability"] == {"generation": probe} and requests[1]["portability"] == {}
    assert "3 of 4 rephrasings are CounterFact's generation prompts" in caplog.text
    for same in (raw[:1] * 3, raw[1:2] * 3, [{**record, "case_id": None} for record in raw]):
        records = [{name: value for name, value in record.items() if value is not None} for record in same]
        requests = data.load(records, shape="counterfact")
        assert all("rephrase_prompt" in request and not request["portability"] for request in requests)


SHARED = Path(
    os.environ.get("EASYEDIT_NEURON_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data"
)

# Counted with a few lines over the raw JSON; 3 KnowEdit-zsRE prompts spell their subject otherwise than
# "subject" does.
REAL = [
    ("counterfact/counterfact-edit.json", 10000, 0),
    ("counterfact/counterfact_portability_gpt4.json", 1031, 0),
    ("zsre/zsre_mend_eval_portability_gpt4.json", 1037, 0),
    ("knowedit/ZsRE-test-all.json", 1304, 3),
    ("knowedit/wiki_counterfact_train_cf.json", 1428, 0),
    ("knowedit/wiki_recent_recent_train.json", 570, 0),
]
if SHARED.is_dir():

    @pytest.mark.parametrize("name, records, invalid", REAL)
    def test_real_files(name, records, invalid, caplog):
        with caplog.at_level(logging.WARNING):
            requests = data.load(SHARED / name, invalid="skip")
        left_out = [entry for entry in caplog.records if entry.getMessage().startswith("left out")]
        assert (len(requests), len(left_out)) == (records - invalid, invalid)
        for request in requests:
            assert request["subject"] in request["prompt"] and request["target_new"].strip()
            for probe in [*request["locality"].values(), *request["portability"].values()]:
                prompts, answers = probe["prompt"], probe["ground_truth"]
                assert isinstance(prompts, str) == isinstance(answers, str)
                if isinstance(prompts, list):
                    assert len(prompts) == len(answers) > 0
                    assert all(isinstance(text, str) and text.strip() for text in prompts + answers)
        if invalid:
            with pytest.raises(DataError, match="record 396: field 'subject'"):
                data.load(SHARED / name)

    def test_generation_prompts_are_told_from_paraphrases(caplog):
        """Against the nested file, which has both kinds by name."""
        nested = json.loads((SHARED / "counterfact/counterfact_portability_gpt4.json").read_text())
        kinds = {record["case_id"]: record for record in nested}
        flat = json.loads((SHARED / "counterfact/counterfact-edit.json").read_text())
        counts = collections.Counter()
        for raw, request in zip(flat, data.load(SHARED / "counterfact/counterfact-edit.json"), strict=True):
            record = kinds.get(raw["case_id"])
            if record is None:
                continue
            is_generation = raw["rephrase_prompt"] in record["generation_prompts"]
            counts[is_generation, "rephrase_prompt" in request] += 1
        assert counts[True, True] == 0 and counts[True, False] == 858
        assert counts[False, True] == 164 and counts[False, False] == 9
        assert "are CounterFact's generation prompts" in caplog.text

    def test_knowedit_probes_equal_the_examples_rule():
        # The rule of EasyEdit's KnowEdit example, written again: walk down first items, drop blank answers.
        path = SHARED / "knowedit/wiki_recent_recent_train.json"
        raw = json.loads(path.read_text())
        for record, request in zip(raw, data.load(path)):
            for kind, probes in record["portability"].items():
                expected = []
                for probe in probes:
                    answer = probe["ground_truth"]
                    while isinstance(answer, list):
                        answer = answer[0]
                    if answer.strip():
                        expected.append((probe["prompt"], answer))
                kind = "reasoning" if kind == "Reasoning" else kind
                probes_read = request["portability"].get(kind, {"prompt": [], "ground_truth": []})
                assert list(zip(probes_read["prompt"], probes_read["ground_truth"])) == expected


def test_shipped_world_is_the_same_in_its_three_shapes():
    shapes = {shape: data.load("tiny-world", shape=shape) for shape in ("knowedit", "counterfact", "zsre")}
    core = ("prompt", "subject", "target_new", "ground_truth")
    first, *others = (
        [tuple(request[name] for name in core) for request in requests] for requests in shapes.values()
    )
    assert len(first) >= 2400 and all(other == first for other in others)
    assert data.load("tiny-world", size=100) == shapes["knowedit"][:100]
    retained = data.retained("tiny-world")
    assert not {fact["subject"] for fact in retained} & {subject for _, subject, _, _ in first}
    assert not set(data.text("tiny-world", "train")) & set(data.text("tiny-world", "heldout"))
