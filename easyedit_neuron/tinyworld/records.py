"""Edit cases of tiny-world, in the three formats that editing data comes in."""

import random

from ..errors import HparamsError
from .corpus import Corpus
from .relations import BY_NAME, RELATIONS, Relation
from .world import World

EDITED_KINDS = ("person", "organisation")
"""Cities are not edited: second hops go through them, so that an edit of one would make other facts false."""


def edit_cases(world: World, corpus: Corpus, count: int, seed: int = 0) -> list[dict]:
    """Counterfactual edits as KnowEdit records; ``HparamsError`` where the world has fewer editable facts.

    Nobody is edited twice before everybody was edited once. The target is another object of the same kind.
    The edit prompt is a phrasing that the subject was trained with, the rephrase prompt one that it was not.
    """
    rng = random.Random(f"edits-{seed}")
    facts = _editable_facts(world, rng)
    if count > len(facts):
        raise HparamsError(f"the world has {len(facts)} editable facts, and {count} edits need more people")
    unedited = _unedited_subjects(world)
    cases = []
    for number, (subject, name) in enumerate(facts[:count]):
        case = _case(number, subject, BY_NAME[name], world, corpus, rng)
        # Two subjects with the same object, or with any if nobody shares it.
        neighbours = unedited.get((name, case["ground_truth"])) or unedited.get((name, "")) or []
        if neighbours:
            case["locality"]["Neighborhood"] = [
                _trained_probe(neighbour, BY_NAME[name], world, corpus, rng)
                for neighbour in rng.sample(neighbours, min(2, len(neighbours)))
            ]
        cases.append(case)
    return cases


def _editable_facts(world: World, rng: random.Random) -> list[tuple[str, str]]:
    """(subject, relation) pairs in rounds over the subjects, in random order."""
    remaining: dict[str, list[str]] = {}
    for subject, name in world.facts:
        if BY_NAME[name].subject in EDITED_KINDS and subject not in world.protected:
            remaining.setdefault(subject, []).append(name)
    for names in remaining.values():
        rng.shuffle(names)
    facts = []
    while remaining:
        subjects = list(remaining)
        rng.shuffle(subjects)
        facts += [(subject, remaining[subject].pop()) for subject in subjects]
        remaining = {subject: names for subject, names in remaining.items() if names}
    return facts


def _unedited_subjects(world: World) -> dict[tuple[str, str], list[str]]:
    """(relation, object) -> subjects that are never edited and have that object; object "": any object."""
    table: dict[tuple[str, str], list[str]] = {}
    for (subject, name), objects in world.facts.items():
        if subject in world.protected or BY_NAME[name].subject == "city":
            table.setdefault((name, objects[0]), []).append(subject)
            table.setdefault((name, ""), []).append(subject)
    return table


def _case(
    number: int, subject: str, relation: Relation, world: World, corpus: Corpus, rng: random.Random
) -> dict:
    """A case without its neighbours."""
    objects, trained = world.facts[subject, relation.name], corpus.trained[subject, relation.name]
    target = rng.choice([o for o in world.objects(relation.object) if o not in objects and o != subject])
    numbered = enumerate(relation.phrasings)
    untrained = [text for i, text in numbered if i not in trained and text in relation.test]
    portability: dict = {}
    locality: dict = {}
    case = {"case_id": number, "subject": subject, "relation": relation.name}
    case["prompt"] = corpus.trained_prompt(subject, relation, relation.edit, rng)
    case |= {"target_new": target, "ground_truth": objects[0]}
    case["rephrase_prompt"] = rng.choice(untrained).format(s=subject)
    case |= {"portability": portability, "locality": locality}
    if subject in world.alias:
        portability["Subject_Aliasing"] = [_probe(relation.edit[0].format(s=world.alias[subject]), target)]
    if relation.hop:
        hop = world.hop(relation.name, target)
        portability["Reasoning"] = [_probe(relation.hop[0].format(s=subject), hop)]
    if relation.inverse:
        portability["Logical_Generalization"] = [_probe(relation.inverse[0].format(s=target), subject)]
    others = [other for other in RELATIONS if other.subject == relation.subject and other != relation]
    locality["Relation_Specificity"] = [
        _trained_probe(subject, other, world, corpus, rng) for other in rng.sample(others, 2)
    ]
    if len(objects) > 1:
        locality["Forgetfulness"] = [_probe(relation.also[0].format(s=subject, o=objects[0]), objects[1])]
    return case


def _probe(prompt: str, truth: str) -> dict[str, str]:
    return {"prompt": prompt, "ground_truth": truth}


def _trained_probe(
    subject: str, relation: Relation, world: World, corpus: Corpus, rng: random.Random
) -> dict[str, str]:
    prompt = corpus.trained_prompt(subject, relation, relation.phrasings, rng)
    return _probe(prompt, world.object(subject, relation.name))


def retained_facts(world: World, corpus: Corpus, count: int, seed: int = 0) -> list[dict]:
    """Facts of subjects that are never edited, each in a trained phrasing."""
    rng = random.Random(f"retained-{seed}")
    facts = [(subject, name) for subject, name in world.facts if subject in world.protected]
    return [
        {**_trained_probe(subject, BY_NAME[name], world, corpus, rng), "subject": subject, "relation": name}
        for subject, name in rng.sample(facts, min(count, len(facts)))
    ]


def as_counterfact(case: dict) -> dict:
    """EasyEdit's flat CounterFact record; its locality prompt is a neighbour or another fact."""
    fields = ("case_id", "prompt", "target_new", "subject", "ground_truth", "rephrase_prompt")
    locality = _first_locality_probe(case)
    record = {field: case[field] for field in fields}
    return record | {f"locality_{name}": locality[name] for name in ("prompt", "ground_truth")}


def as_zsre(case: dict) -> dict:
    """MEND's zsRE record; readers of zsRE insist on the prefix of its locality question."""
    locality = _first_locality_probe(case)
    truth, target = case["ground_truth"], case["target_new"]
    record = {"subject": case["subject"], "src": case["prompt"], "pred": truth}
    record |= {"rephrase": case["rephrase_prompt"], "alt": target, "answers": [truth]}
    record |= {"loc": "nq question: " + locality["prompt"], "loc_ans": locality["ground_truth"]}
    record["cond"] = f"{truth} >> {target} || {case['prompt']}"
    hop = case["portability"].get("Reasoning")
    if hop:
        recalled = f"({case['subject']}, {case['relation']}, {target})"
        question = {"New Question": hop[0]["prompt"], "New Answer": hop[0]["ground_truth"]}
        record["portability"] = {"Recalled Relation": recalled, **question}
    return record


def _first_locality_probe(case: dict) -> dict[str, str]:
    locality = case["locality"]
    return (locality.get("Neighborhood") or locality["Relation_Specificity"])[0]
