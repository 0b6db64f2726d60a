"""The real-world facts: the shipped files are built from the tables, whose broken lines are named."""

import json
import shutil

import pytest
import yaml

from easyedit_neuron import data
from easyedit_neuron.data import real_world
from easyedit_neuron.data.related import related_prompts
from easyedit_neuron.errors import DataError

TABLES = ("relations.yaml", *real_world.COLUMNS)


@pytest.fixture(scope="module")
def tables():
    return real_world.Tables(real_world.FOLDER)


@pytest.fixture(scope="module")
def records():
    return real_world.build()


@pytest.fixture
def folder(tmp_path):
    """A copy of the tables that a test may break."""
    for name in TABLES:
        shutil.copy(real_world.FOLDER / name, tmp_path / name)
    return tmp_path


def record_of(records, relation, subject):
    return next(r for r in records if (r["relation"], r["subject"]) == (relation, subject))


def prompts_of(records, section):
    return [p for r in records for probes in r[section].values() for p in probes]


def test_shipped_files_are_a_fresh_build():
    for name, content in real_world.texts().items():
        assert (real_world.FOLDER / name).read_text(encoding="utf-8") == content


def test_another_seed_draws_other_targets_from_the_same_facts(records):
    others = {(r["relation"], r["subject"]): r for r in real_world.build(seed=1)}
    assert len(others) == len(records)
    same_target = [r for r in records if others[r["relation"], r["subject"]]["target_new"] == r["target_new"]]
    assert len(same_target) < len(records) / 2


def test_command_writes_both_files_of_a_folder(folder):
    real_world.write(folder)
    for name in real_world.texts():
        assert (folder / name).read_bytes() == (real_world.FOLDER / name).read_bytes()


def test_size_and_sources(tables, records):
    assert len(tables.relations) >= 18 and len(records) >= 850
    assert {r["relation"] for r in records} == set(tables.relations)
    assert all(relation["source"] for relation in tables.relations.values())
    assert len(tables.aliases) >= 150


def test_data_card_counts_the_facts(tables):
    card = (real_world.FOLDER / "README.md").read_text(encoding="utf-8")
    assert f"{len(tables.facts):,} true facts of {len(tables.relations)} relations" in card
    for name, facts in tables.by_relation.items():
        assert f"| `{name}` | {len(facts)} | {len({fact.object for fact in facts})} |" in card


def test_six_phrasings_of_which_edits_see_three(tables, records):
    phrasings = [t for r in tables.relations.values() for t in (*r["edit"], *r["rephrase"])]
    assert len(phrasings) == len(set(phrasings)) == 6 * len(tables.relations)
    for relation in tables.relations.values():
        assert "? " in relation["rephrase"][2] and "?" not in "".join(relation["edit"])
    for record in records:
        assert record["prompt"] in record["edit_prompts"]
        assert record["rephrase_prompt"] in record["paraphrase_prompts"]
        assert not set(record["edit_prompts"]) & set(record["paraphrase_prompts"])
        assert all(record["subject"] in p for p in record["edit_prompts"] + record["paraphrase_prompts"])


def test_sentences_begin_with_a_capital_letter_and_end_before_the_object(records):
    prompts = [p for r in records for p in r["edit_prompts"] + r["paraphrase_prompts"]]
    for section in ("locality", "portability"):
        prompts += [probe["prompt"] for probe in prompts_of(records, section)]
    for prompt in prompts:
        assert not prompt[0].islower() and prompt == prompt.strip() and "  " not in prompt
        assert "{" not in prompt and " the the " not in prompt.lower()


def test_targets_are_false_objects_of_the_relation(tables, records):
    for record in records:
        kind = tables.relations[record["relation"]]["object_kind"]
        truths = set()
        for fact in tables.by_subject[record["subject"]]:
            if tables.relations[fact.relation]["object_kind"] == kind:
                truths |= {*fact.answers, *fact.others}
        assert record["target_new"] in {fact.object for fact in tables.by_relation[record["relation"]]}
        assert record["target_new"] not in truths


def test_targets_are_spread_over_the_objects(tables, records):
    for name, facts in tables.by_relation.items():
        targets = [r["target_new"] for r in records if r["relation"] == name]
        per_object = len(facts) / len({fact.object for fact in facts})
        assert max(map(targets.count, targets)) <= 2 * per_object + 1


def test_relations_mix(records):
    """No relation fills a stretch of the records."""
    for start in range(0, len(records) - 100, 100):
        names = [r["relation"] for r in records[start : start + 100]]
        assert max(map(names.count, names)) <= 15


def test_locality_holds_true_facts_of_other_subjects_and_relations(tables, records):
    answers = {}
    for fact in tables.facts:
        for template in tables.relations[fact.relation]["edit"]:
            answers[template.replace("{}", fact.subject)] = fact
    for record in records:
        for probe in record["locality"].get("Relation_Specificity", []):
            fact = answers[probe["prompt"]]
            assert fact.subject == record["subject"] and fact.relation != record["relation"]
            assert probe["ground_truth"] == fact.answers
        neighbors = record["locality"]["Neighborhood"]
        facts = [answers[probe["prompt"]] for probe in neighbors]
        assert all(f.relation == record["relation"] and f.subject != record["subject"] for f in facts)
        assert [probe["ground_truth"] for probe in neighbors] == [f.answers for f in facts]
        same = [f for f in tables.by_relation[record["relation"]] if f.object == record["ground_truth"][0]]
        shared = min(len(same) - 1, real_world.MAX_NEIGHBORS)
        assert [f.object == record["ground_truth"][0] for f in facts][:shared] == [True] * shared


def test_birthplaces_do_not_test_each_other(records):
    record = record_of(records, "person_birth_country", "Albert Einstein")
    probes = record["locality"]["Relation_Specificity"]
    assert [probe["ground_truth"][0] for probe in probes] == ["physics"]


def test_hops_and_inverses_checked_by_hand(records):
    """With the target in the place of the object: a city's country, and the country of a capital."""
    countries = {"Vienna": "Austria", "Dubai": "the United Arab Emirates", "Boston": "the United States"}
    countries |= {"Chicago": "the United States", "Venice": "Italy", "Moscow": "Russia", "Paris": "France"}
    checked = [r for r in records if r["relation"] == "landmark_city" and r["target_new"] in countries]
    assert len(checked) >= 5
    for record in checked:
        assert record["portability"]["Reasoning"] == [
            {
                "prompt": f"The country where you find {record['subject']} is",
                "ground_truth": [countries[record["target_new"]]],
            }
        ]
    record = record_of(records, "country_capital", "Japan")
    assert record["ground_truth"] == ["Tokyo"]
    inverse = {"prompt": f"{record['target_new']} is the capital of", "ground_truth": ["Japan"]}
    assert record["portability"]["Logical_Generalization"] == [inverse]
    assert "Reasoning" not in record["portability"] and "Subject_Aliasing" not in record["portability"]


def test_aliases_and_further_objects(records):
    record = record_of(records, "country_language", "Switzerland")
    question = "Besides German, another official language of Switzerland is"
    further = ["French", "Italian", "Romansh"]
    assert record["locality"]["Forgetfulness"] == [{"prompt": question, "ground_truth": further}]
    record = record_of(records, "country_capital", "the United States")
    for probe, alias in zip(record["portability"]["Subject_Aliasing"], ("the USA", "America")):
        assert probe["prompt"] == record["prompt"].replace("the United States", alias)
        assert probe["ground_truth"] == [record["target_new"]]


@pytest.mark.parametrize("shape", ["knowedit", "counterfact_nested"])
def test_every_record_is_readable(records, shape):
    path = real_world.FOLDER / f"edits_{shape}.json"
    requests = data.load(path)
    assert len(requests) == len(records) == len(data.load(path, shape=shape))
    for request, record in zip(requests, records):
        for field in ("prompt", "subject", "target_new"):
            assert request[field] == record[field]
        assert request["ground_truth"] == record["ground_truth"][0]
        assert request["rephrase_prompt"] in record["paraphrase_prompts"]


def test_nested_neighbors_share_the_object(tables):
    nested = json.loads((real_world.FOLDER / "edits_counterfact_nested.json").read_text(encoding="utf-8"))
    true_of = {}
    for fact in tables.facts:
        for template in tables.relations[fact.relation]["edit"]:
            true_of[template.replace("{}", fact.subject)] = fact.object
    prompts = [
        (p, n["requested_rewrite"]["target_true"]["str"]) for n in nested for p in n["neighborhood_prompts"]
    ]
    assert len(prompts) > 500
    assert all(true_of[prompt] == truth for prompt, truth in prompts)


def append(path, text):
    path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")
    return len(path.read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize(
    ("name", "line", "problem"),
    [
        ("facts.tsv", "country_capital\tJapan\tOsaka\t\t", "stands twice"),
        ("facts.tsv", "country_anthem\tJapan\tKimigayo\t\t", "not in relations.yaml"),
        ("facts.tsv", "country_capital\tNorway", "separated by tabs"),
        ("facts.tsv", "country_capital\tAtlantis \tPoseidonis\t\t", "without blanks"),
        ("facts.tsv", "country_capital\tAtlantis\tPoseidonis\t\tOther", "not functional"),
        ("facts.tsv", "city_country\tsouthampton\tEngland\t\t", "lower case"),
        ("facts.tsv", "city_country\tAtlantis\tOceanus\t\t", "no capital_of_country of 'Oceanus'"),
        ("subjects.tsv", "Nobody at all\tNemo", "must be the subject of a fact"),
        ("attributes.tsv", "capital_of_country\tJapan\tOsaka", "stands twice"),
    ],
)
def test_broken_lines_are_named(folder, name, line, problem):
    number = append(folder / name, line + "\n")
    with pytest.raises(DataError, match=f"{name}, line {number}: .*{problem}"):
        real_world.build(folder)


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("The capital of a country is", "'{}' once"),
        ("The capital city of {} is ", "blanks"),
        (None, "three edit"),
    ],
)
def test_broken_templates_are_named(folder, template, problem):
    path = folder / "relations.yaml"
    relations = yaml.safe_load(path.read_text(encoding="utf-8"))
    relations[0]["edit"] = [template or relations[0]["rephrase"][0], *relations[0]["edit"][1:]]
    path.write_text(yaml.safe_dump(relations, sort_keys=False, allow_unicode=True), encoding="utf-8")
    with pytest.raises(DataError, match=f"relations.yaml, line 1: .*{problem}"):
        real_world.build(folder)


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("hop", {"prompt": "{} is"}, "prompt and attribute"),
        ("edit", "{} is", "lists of templates"),
        ("name", "country_currency", "stands twice"),
        ("functional", False, "others, with"),
    ],
)
def test_broken_fields_are_named(folder, field, value, problem):
    path = folder / "relations.yaml"
    relations = yaml.safe_load(path.read_text(encoding="utf-8"))
    relations[0][field] = value
    path.write_text(yaml.safe_dump(relations, sort_keys=False, allow_unicode=True), encoding="utf-8")
    with pytest.raises(DataError, match=rf"relations.yaml, line \d+: .*{problem}"):
        real_world.build(folder)


def test_missing_attribute_is_named(folder):
    path = folder / "attributes.tsv"
    lines = path.read_text(encoding="utf-8").splitlines()
    lines.remove("capital_of_country\tJapan\tTokyo")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"facts.tsv, line \d+: .*no capital_of_country of 'Japan'"):
        real_world.build(folder)


def test_retained_facts_are_facts_of_the_tables():
    """Each asks for a true object in one of its relation's phrasings; held-out text is there."""
    tables = real_world.Tables(real_world.FOLDER)
    retained = data.retained("real-world")
    assert len(retained) > 400
    for entry in retained:
        relation = tables.relations[entry["relation"]]
        phrasings = [
            text.replace("{}", entry["subject"]) for text in [*relation["edit"], *relation["rephrase"]]
        ]
        assert entry["prompt"] in phrasings
        (fact,) = [f for f in tables.by_relation[entry["relation"]] if f.subject == entry["subject"]]
        assert entry["ground_truth"] == fact.object
    assert len(data.text("real-world", "heldout")) == 30


def test_the_parts_share_nothing():
    chosen, reported = (data.load("real-world", part=part) for part in ("choose", "report"))
    assert len(chosen) == 150 and len(reported) > 900
    for field in ("prompt", "subject"):
        assert not {request[field] for request in chosen} & {request[field] for request in reported}
    several = data.load("real-world", size=3, rephrasings="all")
    assert all(len(request["rephrase_prompt"]) == 3 for request in several)


def test_related_prompts_of_a_fact_by_hand():
    rephrasings, neighbours = related_prompts("The capital of France is", "France")
    assert len(rephrasings) == 5 and "The capital of France is" not in rephrasings
    assert "The capital of Italy is" in neighbours and len(neighbours) == 59
    assert related_prompts("The capital of France was", "France") == ([], [])
    _, neighbours = related_prompts("Animal Farm was written by", "Animal Farm")
    assert neighbours[0] == "Nineteen Eighty-Four was written by", "another book of its author comes first"
