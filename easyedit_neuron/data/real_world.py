"""The real-world facts: editing records built from the tables in ``assets/real-world``.

``python -m easyedit_neuron.data.real_world`` writes the two shipped files again, in KnowEdit's shape and in
that of ROME and MEMIT. The header of ``relations.yaml`` explains the tables.
"""

import argparse
import json
import random
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .. import resources
from ..errors import DataError
from ..utils.io import write_text
from ..utils.plain_trees import parse_yaml

FOLDER = resources.ASSETS_DIR / "real-world"
FIELDS = ("name", "object_kind", "source", "edit", "rephrase", "inverse", "hop", "functional")
COLUMNS = {
    "facts.tsv": ("relation", "subject", "object", "accepted", "others"),
    "subjects.tsv": ("subject", "aliases"),
    "attributes.tsv": ("attribute", "object", "value"),
}
MAX_SPECIFICITY, MAX_NEIGHBORS = 3, 4


@dataclass(frozen=True)
class Fact:
    """A line of ``facts.tsv``; ``place`` is its file and line."""

    relation: str
    subject: str
    object: str
    accepted: list[str]
    others: list[str]
    place: str

    @property
    def answers(self) -> list[str]:
        return [self.object, *self.accepted]


class Tables:
    """The tables of a folder, checked; ``DataError`` names file and line of what is wrong."""

    def __init__(self, folder: Path) -> None:
        self.relations = _read_relations(folder / "relations.yaml")
        self.facts: list[Fact] = []
        self.by_relation: dict[str, list[Fact]] = defaultdict(list)
        self.by_subject: dict[str, list[Fact]] = defaultdict(list)
        for place, row in _read_table(folder / "facts.tsv"):
            fact = Fact(*row[:3], _split(row[3]), _split(row[4]), place)
            self._check_fact(fact)
            self.facts.append(fact)
            self.by_relation[fact.relation].append(fact)
            self.by_subject[fact.subject].append(fact)
        self.aliases: dict[str, list[str]] = {}
        for place, (subject, aliases) in _read_table(folder / "subjects.tsv"):
            if subject not in self.by_subject or subject in self.aliases:
                raise DataError(f"{place}: {subject!r} must be the subject of a fact, and stand here once")
            self.aliases[subject] = _split(aliases)
            for fact in self.by_subject[subject]:
                for alias in self.aliases[subject]:
                    if alias in self.by_subject:
                        raise DataError(f"{place}: the alias {alias!r} is a subject of its own")
                    _check_start(place, self.relations[fact.relation], alias)
        self.attributes: dict[str, dict[str, str]] = defaultdict(dict)
        for place, (attribute, name, value) in _read_table(folder / "attributes.tsv"):
            if name in self.attributes[attribute]:
                raise DataError(f"{place}: {attribute} of {name!r} stands twice")
            self.attributes[attribute][name] = value
        for fact in self.facts:
            if fact.object not in self.attribute_of(fact.relation, {fact.object: ""}):
                attribute = self.relations[fact.relation]["hop"]["attribute"]
                raise DataError(f"{fact.place}: attributes.tsv has no {attribute} of {fact.object!r}")

    def attribute_of(self, relation: str, default: dict[str, str]) -> dict[str, str]:
        """The table that the hop of a relation looks in; ``default`` where it has no hop."""
        hop = self.relations[relation]["hop"]
        return self.attributes[hop["attribute"]] if hop else default

    def _check_fact(self, fact: Fact) -> None:
        relation = self.relations.get(fact.relation)
        if relation is None:
            raise DataError(f"{fact.place}: relation {fact.relation!r} is not in relations.yaml")
        if any(other.relation == fact.relation for other in self.by_subject.get(fact.subject, [])):
            raise DataError(f"{fact.place}: {fact.relation} of {fact.subject!r} stands twice")
        if fact.others and relation["functional"]:
            raise DataError(f"{fact.place}: others are for relations that are not functional")
        _check_start(fact.place, relation, fact.subject)


def build(folder: str | Path = FOLDER, seed: int = 0) -> list[dict[str, Any]]:
    """Make the KnowEdit-shaped records of the tables in ``folder``; the same seed gives the same records."""
    tables, rng = Tables(Path(folder)), random.Random(seed)
    order = rng.sample(tables.facts, len(tables.facts))
    counts: Counter[tuple[str, str]] = Counter()
    records = []
    for case_id, fact in enumerate(order):
        target = _choose_target(fact, tables, counts, rng)
        counts[fact.relation, target] += 1
        records.append(_record(case_id, fact, target, tables, rng))
    return records


def nested(record: dict[str, Any], edit_templates: list[str]) -> dict[str, Any]:
    """Turn a record of ``build`` into the shape of ROME and MEMIT."""
    truth = record["ground_truth"][0]
    neighbors = record["locality"].get("Neighborhood", [])
    return {
        "case_id": record["case_id"],
        "requested_rewrite": {
            "prompt": edit_templates[record["case_id"] % 3],
            "relation_id": record["relation"],
            "target_new": {"str": record["target_new"]},
            "target_true": {"str": truth},
            "subject": record["subject"],
        },
        "paraphrase_prompts": record["paraphrase_prompts"],
        "neighborhood_prompts": [probe["prompt"] for probe in neighbors if probe["ground_truth"][0] == truth],
        "generation_prompts": [],
    }


def texts(folder: str | Path = FOLDER, seed: int = 0) -> dict[str, str]:
    """Give the content of the two JSON files, by file name."""
    relations, records = _read_relations(Path(folder) / "relations.yaml"), build(folder, seed)
    contents = {
        "edits_knowedit.json": records,
        "edits_counterfact_nested.json": [nested(r, relations[r["relation"]]["edit"]) for r in records],
    }
    return {name: json.dumps(rows, indent=1, ensure_ascii=False) + "\n" for name, rows in contents.items()}


def write(folder: str | Path = FOLDER, seed: int = 0) -> None:
    """Write both JSON files beside the tables."""
    for name, content in texts(folder, seed).items():
        write_text(Path(folder) / name, content)


def _record(case_id: int, fact: Fact, target: str, tables: Tables, rng: random.Random) -> dict[str, Any]:
    """Assemble a record; kinds of probes that the tables have nothing for are left out."""
    relation, subject = tables.relations[fact.relation], fact.subject
    edit_prompts, paraphrases = (
        [_fill(text, subject) for text in relation[key]] for key in ("edit", "rephrase")
    )
    template = relation["edit"][case_id % 3]
    portability = {
        "Subject_Aliasing": [_probe(template, a, [target]) for a in tables.aliases.get(subject, [])]
    }
    if relation["hop"]:
        value = tables.attribute_of(fact.relation, {})[target]
        portability["Reasoning"] = [_probe(relation["hop"]["prompt"], subject, [value])]
    if relation["inverse"]:
        portability["Logical_Generalization"] = [_probe(relation["inverse"], target, [subject])]
    # What the edit must not change: other facts of the subject, of other subjects, further objects.
    excluded = {fact.relation, *relation.get("entangled", [])}
    same_subject = [other for other in tables.by_subject[subject] if other.relation not in excluded]
    neighbors = [other for other in tables.by_relation[fact.relation] if other is not fact]
    rng.shuffle(same_subject)
    rng.shuffle(neighbors)
    neighbors.sort(key=lambda other: other.object != fact.object)
    locality = {
        kind: [_probe(tables.relations[f.relation]["edit"][case_id % 3], f.subject, f.answers) for f in facts]
        for kind, facts in (
            ("Relation_Specificity", same_subject[:MAX_SPECIFICITY]),
            ("Neighborhood", neighbors[:MAX_NEIGHBORS]),
        )
    }
    if fact.others:
        template = relation["others"].replace("{object}", fact.object).replace("{subject}", "{}")
        locality["Forgetfulness"] = [_probe(template, subject, fact.others)]
    return {
        "case_id": case_id,
        "relation": fact.relation,
        "subject": subject,
        "prompt": edit_prompts[case_id % 3],
        "edit_prompts": edit_prompts,
        "target_new": target,
        "ground_truth": fact.answers,
        "rephrase_prompt": paraphrases[case_id % 3],
        "paraphrase_prompts": paraphrases,
        "portability": {kind: probes for kind, probes in portability.items() if probes},
        "locality": {kind: probes for kind, probes in locality.items() if probes},
    }


def _choose_target(fact: Fact, tables: Tables, counts: Counter[tuple[str, str]], rng: random.Random) -> str:
    """Draw a false object of the relation, among those that are a target least often.

    No name of it is a name of a true object of that kind of the same subject. With a hop, objects whose
    attribute differs from the true one are preferred.
    """
    kind = tables.relations[fact.relation]["object_kind"]
    truths = set()
    for other in tables.by_subject[fact.subject]:
        if tables.relations[other.relation]["object_kind"] == kind:
            truths |= {name.casefold() for name in [*other.answers, *other.others]}
    names: dict[str, set[str]] = defaultdict(set)
    for other in tables.by_relation[fact.relation]:
        names[other.object] |= {name.casefold() for name in other.answers}
    candidates = [name for name in names if not names[name] & truths]
    if not candidates:
        raise DataError(f"{fact.place}: {fact.relation} has no false object for {fact.subject!r}: add facts")
    values = tables.attribute_of(fact.relation, {})
    candidates = [name for name in candidates if values.get(name) != values.get(fact.object)] or candidates
    least = min(counts[fact.relation, name] for name in candidates)
    return rng.choice([name for name in candidates if counts[fact.relation, name] == least])


def _read_relations(path: Path) -> dict[str, dict[str, Any]]:
    """Read the relations by name, and check their templates."""
    try:
        content = path.read_text(encoding="utf-8")
        entries, nodes = parse_yaml(content), yaml.compose(content, Loader=yaml.SafeLoader)
    except (OSError, ValueError, yaml.YAMLError) as problem:
        raise DataError(f"{path}: cannot be read: {problem}") from None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise DataError(f"{path}, line 1: must hold a list of mappings")
    relations: dict[str, dict[str, Any]] = {}
    for relation, node in zip(entries, nodes.value):
        place = f"{path}, line {node.start_mark.line + 1}"
        if missing := [field for field in FIELDS if field not in relation]:
            raise DataError(f"{place}: a relation without {', '.join(missing)}")
        if not all(isinstance(relation[field], list) for field in ("edit", "rephrase")):
            raise DataError(f"{place}: edit and rephrase must be lists of templates")
        if relation["hop"] and set(relation["hop"]) != {"prompt", "attribute"}:
            raise DataError(f"{place}: hop must be null, or have prompt and attribute")
        templates = [*relation["edit"], *relation["rephrase"]]
        if (len(relation["edit"]), len(relation["rephrase"]), len(set(templates))) != (3, 3, 6):
            raise DataError(
                f"{place}: {relation['name']} needs three edit and three other phrasings, all distinct"
            )
        hop_prompt = [relation["hop"]["prompt"]] if relation["hop"] else []
        inverse = [relation["inverse"]] if relation["inverse"] else []
        for template in [*templates, *hop_prompt, *inverse]:
            if template.count("{}") != 1 or template != template.strip():
                raise DataError(f"{place}: needs '{{}}' once and no blanks at its ends: {template!r}")
        others = relation.get("others", "")
        if relation["functional"] == all(others.count(slot) == 1 for slot in ("{subject}", "{object}")):
            raise DataError(
                f"{place}: others, with {{subject}} and {{object}}, is for relations not functional"
            )
        if relation["name"] in relations:
            raise DataError(f"{place}: {relation['name']} stands twice")
        relations[relation["name"]] = relation
    return relations


def _read_table(path: Path) -> list[tuple[str, list[str]]]:
    """Place and cells of every line after the header."""
    columns, rows = COLUMNS[path.name], []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        raise DataError(f"{path}: cannot be read: {problem}") from None
    for number, line in enumerate(lines, start=1):
        cells, place = line.split("\t"), f"{path}, line {number}"
        optional = {"accepted", "others"}
        filled = all(cell or name in optional for name, cell in zip(columns, cells))
        if len(cells) != len(columns) or not filled or any(cell != cell.strip() for cell in cells):
            raise DataError(f"{place}: must hold {', '.join(columns)}, separated by tabs, without blanks")
        if (number == 1) != (tuple(cells) == columns):
            raise DataError(f"{place}: the first line, and no other, is the header {' '.join(columns)}")
        rows.append((place, cells))
    return rows[1:]


def _check_start(place: str, relation: dict[str, Any], subject: str) -> None:
    """Refuse a subject in lower case where a template begins with it."""
    templates = [*relation["edit"], *relation["rephrase"]]
    if subject[0].islower() and any(template.startswith("{}") for template in templates):
        raise DataError(f"{place}: {subject!r} would begin a sentence of {relation['name']} in lower case")


def _fill(template: str, name: str) -> str:
    return template.replace("{}", name)


def _probe(template: str, name: str, answers: list[str]) -> dict[str, Any]:
    return {"prompt": _fill(template, name), "ground_truth": answers}


def _split(cell: str) -> list[str]:
    return cell.split("|") if cell else []


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description="Write the JSON files of the real-world facts from their tables."
    )
    parser.add_argument(
        "--folder", type=Path, default=FOLDER, help="folder with the tables (default: the shipped one)"
    )
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    write(arguments.folder, arguments.seed)
