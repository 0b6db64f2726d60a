"""CounterFact records to choose settings on, apart from those that results report.

``python -m easyedit_neuron.data.counterfact_choose counterfact-edit.json counterfact_portability_gpt4.json
OUT.json``

The flat file of EasyEdit has no usable paraphrases: three of four ``rephrase_prompt``s are CounterFact's
generation prompts. The records here are those of the flat file without the prompts and subjects of the
reported file, whose prompt is a template of a relation of that file; they are rephrased by the relation's
other templates.
"""

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..utils.io import write_text
from . import load
from .files import read_records
from .splits import without

MOST_PHRASINGS = 4


def choose_records(
    flat: Sequence[dict[str, Any]], reported: Sequence[dict[str, Any]], seed: int = 0
) -> list[dict[str, Any]]:
    """Flat records with ``rephrase_prompt`` and ``paraphrase_prompts`` of their relation, shuffled by the
    seed.

    Args:
        flat: records of EasyEdit's ``counterfact-edit.json``.
        reported: records in the shape of ROME and MEMIT, with ``relation_id``; nothing of them is returned.
        seed: of the order.
    """
    relations: dict[str, dict[str, None]] = {}
    relation_of: dict[str, str] = {}
    for record in reported:
        rewrite = record["requested_rewrite"]
        relations.setdefault(rewrite["relation_id"], {})[rewrite["prompt"]] = None
        relation_of[rewrite["prompt"]] = rewrite["relation_id"]
    requests = load(reported, "counterfact_nested")
    chosen = []
    for record in without([record for record in flat if record["subject"] in record["prompt"]], requests):
        template = record["prompt"].replace(record["subject"], "{}")
        others = [text for text in relations.get(relation_of.get(template, ""), {}) if text != template]
        if others:
            texts = [text.replace("{}", record["subject"]) for text in others[:MOST_PHRASINGS]]
            chosen.append({**record, "rephrase_prompt": texts[0], "paraphrase_prompts": texts})
    random.Random(seed).shuffle(chosen)
    return chosen


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write CounterFact records to choose settings on.")
    parser.add_argument("flat", type=Path, help="EasyEdit's counterfact-edit.json")
    parser.add_argument("reported", type=Path, help="the file that results report, in ROME's shape")
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    records = choose_records(read_records(arguments.flat), read_records(arguments.reported))
    write_text(arguments.out, json.dumps(records, indent=1, ensure_ascii=False) + "\n")
