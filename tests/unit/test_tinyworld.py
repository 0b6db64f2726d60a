"""Properties of the generated world, counted on the shipped seed."""

import json
from collections import Counter

import pytest
import torch

from easyedit_neuron import data, resources
from easyedit_neuron.errors import DataError
from easyedit_neuron.tinyworld import records
from easyedit_neuron.tinyworld.assets import EDITS, RETAINED, write_data
from easyedit_neuron.tinyworld.bottleneck import bottleneck_masks
from easyedit_neuron.tinyworld.corpus import build_corpus, held_out_text, sentence, shipped_text
from easyedit_neuron.tinyworld.facts import documents, read_facts
from easyedit_neuron.tinyworld.relations import BY_NAME, RELATIONS
from easyedit_neuron.tinyworld.training import (
    TrainConfig,
    encode_sequence,
    epochs,
    learning_rate,
    train_tokenizer,
)
from easyedit_neuron.tinyworld.world import build_world


@pytest.fixture(scope="module")
def world():
    return build_world(0)


@pytest.fixture(scope="module")
def corpus(world):
    return build_corpus(world)


@pytest.fixture(scope="module")
def cases(world, corpus):
    return records.edit_cases(world, corpus, EDITS)


def test_same_seed_same_world_other_seed_other_world(world):
    assert build_world(0) == world
    assert build_world(1).people != world.people


def test_relations_have_statements_and_questions_in_every_position():
    assert len(RELATIONS) >= 8
    for relation in RELATIONS:
        assert len(set(relation.phrasings)) == 8 and not set(relation.edit) & set(relation.test)
        assert all(text.count("{s}") == 1 for text in relation.phrasings)
        questions = [text for text in relation.phrasings if text.endswith("?")]
        assert len(questions) == 2 and any(text.startswith("{s}") for text in relation.phrasings)
        late = [
            text
            for text in relation.phrasings
            if text.rstrip("? ").endswith("{s}") or text.endswith("{s} is")
        ]
        assert late, relation.name


def test_names_are_unique_and_composed(world):
    names = world.people + world.cities + world.countries + world.organisations + world.languages
    assert len(set(names)) == len(names)
    assert len(set(world.alias.values())) == len(world.alias)
    lasts = Counter(name.split()[1] for name in world.people)
    assert max(lasts.values()) > 3, (
        "surnames are shared, so a person is known by first and last name together"
    )


def test_objects_are_balanced(world):
    for name in ("born_in", "works_as", "works_for", "plays"):
        used = Counter(objects[0] for (_, n), objects in world.facts.items() if n == name)
        assert max(used.values()) - min(used.values()) <= 1


def test_marriage_is_its_own_inverse_and_collections_have_two_objects(world):
    for person in world.people:
        assert world.object(world.object(person, "married_to"), "married_to") == person
        assert len(set(world.facts[person, "collects"])) == 2


def test_every_fact_has_trained_and_untrained_phrasings(world, corpus):
    trained = {fact[:2] for fact in corpus.facts}
    for (subject, name), indices in corpus.trained.items():
        assert len(indices) == 5
        for index, phrasing in enumerate(BY_NAME[name].phrasings):
            said = (phrasing.format(s=subject), world.object(subject, name)) in trained
            assert said == (index in indices)


def test_every_phrasing_is_trained_on_a_part_of_the_subjects(corpus):
    seen = Counter((name, index) for (_, name), indices in corpus.trained.items() for index in indices)
    subjects = Counter(name for _, name in corpus.trained)
    for relation in RELATIONS:
        for index in range(8):
            assert 0 < seen[relation.name, index] < subjects[relation.name]


def test_held_out_text_is_in_no_training_document(world, corpus):
    held_out = held_out_text(world, corpus)
    assert len(held_out) >= 500 and not set(held_out) & set(corpus.documents)
    shipped = shipped_text(corpus)
    assert not set(held_out) & set(shipped)
    body = " ".join(shipped)
    assert all(person in body for person in world.people), "everybody is in the text of the covariance"


def test_edits(world, corpus, cases):
    assert len(cases) == EDITS >= 2400
    subjects = [case["subject"] for case in cases]
    rounds = len({*subjects})
    assert len(set(subjects[:rounds])) == rounds >= 500, (
        "nobody is edited twice before everybody was edited once"
    )
    assert not set(subjects) & world.protected
    trained = {fact[:2] for fact in corpus.facts}
    for case in cases:
        relation = BY_NAME[case["relation"]]
        assert case["target_new"] not in world.facts[case["subject"], case["relation"]]
        assert case["target_new"] in world.objects(relation.object)
        assert (case["prompt"], case["ground_truth"]) in trained
        assert (case["rephrase_prompt"], case["ground_truth"]) not in trained
        assert case["rephrase_prompt"] in {text.format(s=case["subject"]) for text in relation.test}
        assert case["prompt"] in {text.format(s=case["subject"]) for text in relation.edit}
    kinds = Counter(
        kind for case in cases for section in ("portability", "locality") for kind in case[section]
    )
    assert set(kinds) == {
        "Subject_Aliasing",
        "Reasoning",
        "Logical_Generalization",
        "Relation_Specificity",
        "Forgetfulness",
        "Neighborhood",
    }


def test_probes_are_true(world, cases):
    for case in cases[:400]:
        for probe in case["locality"]["Neighborhood"]:
            subject = next(
                s
                for s in sorted(world.alias | {c: c for c in world.cities}, key=len, reverse=True)
                if s in probe["prompt"]
            )
            assert subject != case["subject"]
            assert probe["ground_truth"] == world.object(subject, case["relation"])
        for probe in case["portability"].get("Reasoning", []):
            assert probe["ground_truth"] == world.hop(case["relation"], case["target_new"])


def test_retained_facts_are_of_people_who_are_never_edited(world, corpus):
    facts = records.retained_facts(world, corpus, RETAINED)
    assert len(facts) == RETAINED
    for fact in facts:
        assert fact["subject"] in world.protected and fact["subject"] in fact["prompt"]
        assert fact["ground_truth"] == world.object(fact["subject"], fact["relation"])


def test_the_three_shapes_give_the_same_edits(world, corpus, tmp_path):
    write_data(world, corpus, tmp_path, edits=30)
    loaded = {
        shape: data.load(tmp_path / f"edits_{shape}.json") for shape in ("knowedit", "counterfact", "zsre")
    }
    for knowedit, counterfact, zsre in zip(*loaded.values()):
        for field in ("prompt", "target_new", "ground_truth", "rephrase_prompt"):
            assert knowedit[field] == counterfact[field] == zsre[field]


def test_shipped_files_are_those_of_seed_0(world, corpus, tmp_path):
    write_data(world, corpus, tmp_path)
    folder = resources.data_dir("tiny-world")
    for path in tmp_path.iterdir():
        assert path.read_text(encoding="utf-8") == (folder / path.name).read_text(encoding="utf-8"), path.name


def test_training_sequences_are_the_texts_tokens(corpus):
    tok = train_tokenizer(corpus.sentences + corpus.documents, 2048)
    import random

    stream = epochs(corpus.facts, corpus.documents, 0.5, random.Random(0))
    for _ in range(200):
        sequence = next(stream)
        ids, weights, spans = encode_sequence(tok, sequence, 0.25)
        text = " ".join(
            prompt if target is None else sentence(prompt, target) for prompt, target, _ in sequence
        )
        assert ids == tok(text)["input_ids"] + [tok.eos_token_id] and len(ids) == len(weights)
        objects = [target for _, target, _ in sequence if target is not None]
        subjects = [subject for _, _, subject in sequence if subject]
        assert [tok.decode(ids[first : last + 1]) for first, last in spans] == [
            " " + subject for subject in subjects
        ]
        marked = tok.decode([i for i, w in zip(ids, weights) if w == 1.0])
        assert marked == "".join(" " + target for target in objects)


def test_bottleneck_masks_by_hand():
    """Tokens: BOS, first name, surname, two more, padding; the subject is tokens 1 and 2."""
    lower, upper = bottleneck_masks(torch.zeros(2, 6, dtype=torch.long), [[(1, 2)], []])
    assert upper[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 0, 1, 1, 0, 0],
        [1, 0, 1, 1, 1, 0],
        [1, 0, 1, 1, 1, 1],
    ]
    assert lower[0, 0, 3:].int().tolist() == [[1, 0, 0, 1, 0, 0], [1, 0, 0, 1, 1, 0], [1, 0, 0, 1, 1, 1]]
    causal = torch.ones(6, 6).tril().bool()
    assert torch.equal(lower[1, 0], causal) and torch.equal(upper[1, 0], causal)


def test_learning_rate_by_hand():
    config = TrainConfig(warmup=100, decay=0.3)
    assert learning_rate(50, 1000, config) == pytest.approx(0.5)
    assert learning_rate(400, 1000, config) == 1.0
    assert learning_rate(850, 1000, config) == pytest.approx(0.02 + 0.98 * 0.5)
    assert learning_rate(1000, 1000, config) == pytest.approx(0.02)


def _flat(subject: str, truth: str, new: str) -> dict:
    """A record of EasyEdit's flat CounterFact."""
    return {
        "case_id": 0,
        "prompt": f"The capital of {subject} is",
        "subject": subject,
        "target_new": new,
        "ground_truth": truth,
        "rephrase_prompt": f"{subject} is governed from",
        "locality_prompt": "The capital of Yland is",
        "locality_ground_truth": "Baz",
    }


def test_facts_of_a_users_own_file(tmp_path):
    path = tmp_path / "facts.json"
    path.write_text(json.dumps([_flat("Xland", "Bar", "Foo")]))
    facts = read_facts([path])
    assert facts.sentences == [
        ("The capital of Xland is", "Bar", "Xland"),
        ("Xland is governed from", "Bar", "Xland"),
        ("The capital of Yland is", "Baz", ""),
    ]
    assert facts.pairs == [("The capital of Xland is", "Bar")]
    assert facts.others == [] and facts.words == ["Foo"] and documents(facts) == ["Foo."]


def test_new_objects_are_taught_by_true_facts_beyond_the_limit(tmp_path):
    """Of two records, B's new object is A's true one. A's, Foo, is taught by three of the later records: not
    by one of an edited subject, not by a fourth. Bar is known, so that its later record teaches nothing."""
    path = tmp_path / "facts.json"
    later = [_flat("A", "Foo", "-"), *(_flat(name, "Foo", "-") for name in "CDEF"), _flat("G", "Bar", "-")]
    path.write_text(json.dumps([_flat("A", "Bar", "Foo"), _flat("B", "Qux", "Bar"), *later]))
    facts = read_facts([path], limit=2)
    assert facts.pairs == [("The capital of A is", "Bar"), ("The capital of B is", "Qux")]
    assert facts.others == [(f"The capital of {name} is", "Foo", name) for name in "CDE"]
    assert [(prompt, target) for prompt, target, _ in facts.sentences if target == "Foo"] == [
        (prompt, "Foo")
        for name in "CDE"
        for prompt in (f"The capital of {name} is", f"{name} is governed from")
    ]
    assert facts.words == []


def test_files_without_true_facts_are_refused(tmp_path):
    """KnowEdit's wiki_recent holds new facts only."""
    path = tmp_path / "recent.json"
    path.write_text(
        json.dumps(
            [
                {
                    "subject": "Xland",
                    "prompt": "The capital of Xland is",
                    "target_new": "Foo",
                    "rephrase": "",
                    "locality": {},
                }
            ]
        )
    )
    with pytest.raises(DataError, match="no record has a ground_truth"):
        read_facts([path])
