"""Which of the real-world facts a model knows: ``python -m easyedit_neuron.studies.known_facts --out FOLDER``

Every fact is asked in its six phrasings. An answer is right if every token of the object, or of another
accepted spelling of it, is the model's first choice behind the phrasing. A fact that is right in at least
half of the phrasings is known; ``retained.json`` gets the known facts, each with the first phrasing that is
right, for ``data.retained=FILE``. The table has the share of right answers by relation and phrasing.
"""

import argparse
import json
from pathlib import Path

from ..data.real_world import FOLDER, Fact, Tables
from ..evaluation import predict_targets
from ..utils.io import write_text
from .command import Study, add_model, load
from .output import Result, Table

NEEDED = 3
"""Phrasings, of six, in which a known fact is right."""


def right_phrasings(model, tok, facts: list[Fact], tables: Tables, batch_size: int = 64) -> list[list[str]]:
    """The phrasings of each fact that the model answers right, editing phrasings first."""
    prompts, objects, places = [], [], []
    for number, fact in enumerate(facts):
        relation = tables.relations[fact.relation]
        for template in [*relation["edit"], *relation["rephrase"]]:
            prompt = template.replace("{}", fact.subject)
            for answer in fact.answers:
                prompts.append(prompt)
                objects.append(answer)
                places.append((number, prompt))
    predictions = predict_targets(model, tok, prompts, objects, batch_size)
    right: list[list[str]] = [[] for _ in facts]
    for (number, prompt), prediction in zip(places, predictions):
        if prediction.accuracy == 1.0 and prompt not in right[number]:
            right[number].append(prompt)
    return right


def retained_facts(facts: list[Fact], right: list[list[str]]) -> list[dict[str, str]]:
    """The known facts as ``data.retained`` reads them."""
    return [
        {
            "prompt": prompts[0],
            "ground_truth": fact.object,
            "subject": fact.subject,
            "relation": fact.relation,
        }
        for fact, prompts in zip(facts, right)
        if len(prompts) >= NEEDED
    ]


def shares(facts: list[Fact], right: list[list[str]], tables: Tables) -> list[dict]:
    """A row per relation and one for all: number of facts, share right in each phrasing, share known."""
    rows = []
    for name in [*tables.relations, "all"]:
        chosen = [number for number, fact in enumerate(facts) if name in ("all", fact.relation)]
        row = {"relation": name, "facts": len(chosen)}
        for kind in ("edit", "rephrase"):
            for place in range(3):
                answered = [
                    _phrasing(tables, facts[number], kind, place) in right[number] for number in chosen
                ]
                row[f"{kind}_{place + 1}"] = sum(answered) / len(chosen)
        rows.append(row | {"known": sum(len(right[number]) >= NEEDED for number in chosen) / len(chosen)})
    return rows


def _phrasing(tables: Tables, fact: Fact, kind: str, place: int) -> str:
    return tables.relations[fact.relation][kind][place].replace("{}", fact.subject)


def _measure(args: argparse.Namespace) -> Result:
    model, tables = load(args), Tables(FOLDER)
    right = right_phrasings(model.model, model.tok, tables.facts, tables)
    retained = retained_facts(tables.facts, right)
    folder = args.out or Path("known_facts")
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(retained, indent=1, ensure_ascii=False) + "\n"
    write_text(folder / "retained.json", text)
    rows = shares(tables.facts, right, tables)
    count = f"{len(retained)} of {len(tables.facts)} facts"
    note = f"{count} are known to {args.model}: right in at least {NEEDED} of 6 phrasings"
    return Result("known_facts", "Known facts", note, [], [Table("known_facts", "Share right", rows)], folder)


main = Study("known_facts", __doc__ or "", add_model, _measure).main

if __name__ == "__main__":
    raise SystemExit(main())
