"""Edit cases of tiny-world, in the three shapes that editing data comes in."""

import random

from .corpus import Corpus
from .relations import BY_NAME, RELATIONS
from .world import World

EDITED_KINDS = ("person", "organisation")
"""Cities are not edited: every second hop goes through them, so that an edit of one would change other facts'
truth."""


def edit_cases(world: World, corpus: Corpus, count: int, seed: int = 0) -> list[dict]:
    """``count`` counterfactual edits as KnowEdit records.

    Subjects come in rounds: nobody is edited twice before everybody was edited once. The target is another
        object of the same
    kind; the edit prompt is an edit phrasing that the subject was trained with, the rephrase prompt a test
    phrasing that it was not.

    Raises:
        ValueError: the world has fewer editable facts than ``count``.
    """
    rng = random.Random(f"edits-{seed}")
    queue = _editable(world, rng)
    if count > len(queue):
        raise ValueError(f"{count} edits asked for, the world has {len(queue)} editable facts")
    neighbours = _neighbours(world)
    return [
        _case(i, subject, relation, world, corpus, neighbours, rng)
        for i, (subject, relation) in enumerate(queue[:count])
    ]


def _editable(world: World, rng: random.Random) -> list[tuple[str, str]]:
    by_subject: dict[str, list[str]] = {}
    for subject, name in world.facts:
        if BY_NAME[name].subject in EDITED_KINDS and subject not in world.protected:
            by_subject.setdefault(subject, []).append(name)
    for names in by_subject.values():
        rng.shuffle(names)
    queue = []
    while by_subject:
        subjects = list(by_subject)
        rng.shuffle(subjects)
        for subject in subjects:
            queue.append((subject, by_subject[subject].pop()))
            if not by_subject[subject]:
                del by_subject[subject]
    return queue


def _neighbours(world: World) -> dict[tuple[str, str], list[str]]:
    """(relation, object) -> subjects that are never edited and have that object."""
    table: dict[tuple[str, str], list[str]] = {}
    for (subject, name), objects in world.facts.items():
        if subject in world.protected or BY_NAME[name].subject == "city":
            table.setdefault((name, objects[0]), []).append(subject)
            table.setdefault((name, ""), []).append(subject)
    return table


def _trained(relation, indices, texts, rng) -> str:
    return rng.choice([relation.phrasings[i] for i in indices if relation.phrasings[i] in texts])


def _case(
    number: int, subject: str, name: str, world: World, corpus: Corpus, neighbours, rng: random.Random
) -> dict:
    relation = BY_NAME[name]
    objects = world.facts[subject, name]
    trained = corpus.trained[subject, name]
    target = rng.choice([o for o in world.objects(relation.object) if o not in objects and o != subject])
    unseen = [p for i, p in enumerate(relation.phrasings) if i not in trained and p in relation.test]
    case = {
        "case_id": number,
        "subject": subject,
        "relation": name,
        "prompt": _trained(relation, trained, relation.edit, rng).format(s=subject),
        "target_new": target,
        "ground_truth": objects[0],
        "rephrase_prompt": rng.choice(unseen).format(s=subject),
        "portability": {},
        "locality": {},
    }
    portability, locality = case["portability"], case["locality"]
    if subject in world.alias:
        portability["Subject_Aliasing"] = [_query(relation.edit[0].format(s=world.alias[subject]), target)]
    if relation.hop:
        portability["Reasoning"] = [_query(relation.hop[0].format(s=subject), world.hop(name, target))]
    if relation.inverse:
        portability["Logical_Generalization"] = [_query(relation.inverse[0].format(s=target), subject)]
    others = [r for r in RELATIONS if r.subject == relation.subject and r.name != name]
    locality["Relation_Specificity"] = [
        _query(
            _trained(r, corpus.trained[subject, r.name], r.phrasings, rng).format(s=subject),
            world.object(subject, r.name),
        )
        for r in rng.sample(others, 2)
    ]
    if len(objects) > 1:
        locality["Forgetfulness"] = [_query(relation.also[0].format(s=subject, o=objects[0]), objects[1])]
    near = neighbours.get((name, objects[0])) or neighbours.get((name, "")) or []
    if near:
        chosen = rng.sample(near, min(2, len(near)))
        locality["Neighborhood"] = [
            _query(
                _trained(relation, corpus.trained[s, name], relation.phrasings, rng).format(s=s),
                world.object(s, name),
            )
            for s in chosen
        ]
    return case


def _query(prompt: str, truth: str) -> dict[str, str]:
    return {"prompt": prompt, "ground_truth": truth}


def retained_facts(world: World, corpus: Corpus, count: int, seed: int = 0) -> list[dict]:
    """``count`` facts of subjects that are never edited, each in a trained phrasing."""
    rng = random.Random(f"retained-{seed}")
    facts = [(s, n) for s, n in world.facts if s in world.protected]
    return [
        {
            "prompt": _trained(BY_NAME[n], corpus.trained[s, n], BY_NAME[n].phrasings, rng).format(s=s),
            "ground_truth": world.object(s, n),
            "subject": s,
            "relation": n,
        }
        for s, n in rng.sample(facts, min(count, len(facts)))
    ]


def as_counterfact(case: dict) -> dict:
    """EasyEdit's flat CounterFact record; its one locality prompt is the first specific or neighbour fact."""
    near = (case["locality"].get("Neighborhood") or case["locality"]["Relation_Specificity"])[0]
    return {
        "case_id": case["case_id"],
        "prompt": case["prompt"],
        "target_new": case["target_new"],
        "subject": case["subject"],
        "ground_truth": case["ground_truth"],
        "rephrase_prompt": case["rephrase_prompt"],
        "locality_prompt": near["prompt"],
        "locality_ground_truth": near["ground_truth"],
    }


def as_zsre(case: dict) -> dict:
    """MEND's zsRE record; its locality question carries the prefix that zsRE readers insist on."""
    near = (case["locality"].get("Neighborhood") or case["locality"]["Relation_Specificity"])[0]
    record = {
        "subject": case["subject"],
        "src": case["prompt"],
        "pred": case["ground_truth"],
        "rephrase": case["rephrase_prompt"],
        "alt": case["target_new"],
        "answers": [case["ground_truth"]],
        "loc": "nq question: " + near["prompt"],
        "loc_ans": near["ground_truth"],
        "cond": f"{case['ground_truth']} >> {case['target_new']} || {case['prompt']}",
    }
    hop = case["portability"].get("Reasoning")
    if hop:
        record["portability"] = {
            "Recalled Relation": f"({case['subject']}, {case['relation']}, {case['target_new']})",
            "New Question": hop[0]["prompt"],
            "New Answer": hop[0]["ground_truth"],
        }
    return record
