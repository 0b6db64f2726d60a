"""Write the files that ship: edits in three formats, retained facts, questions, text, the model and its
card."""

import json
from pathlib import Path
from typing import Any

import torch

from . import records
from .corpus import Corpus, held_out_text, shipped_text
from .questions import questions
from .world import World

EDITS = 2600
RETAINED = 600


def write_data(world: World, corpus: Corpus, folder: Path, edits: int = EDITS) -> None:
    cases = records.edit_cases(world, corpus, edits, world.seed)
    files = {
        "edits_knowedit": cases,
        "edits_counterfact": [records.as_counterfact(case) for case in cases],
        "edits_zsre": [records.as_zsre(case) for case in cases],
        "retained": records.retained_facts(world, corpus, RETAINED, world.seed),
        "questions": questions(world, corpus, RETAINED, world.seed),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in files.items():
        lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
        (folder / f"{name}.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    write_lines(folder / "text_train.txt", shipped_text(corpus, world.seed))
    write_lines(folder / "text_heldout.txt", held_out_text(world, corpus, world.seed))


def write_lines(path: Path, lines: list[str]) -> None:
    """Write lines of text, the last one with its line break."""
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def write_json(path: Path, content: Any, indent: int) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=indent) + "\n", encoding="utf-8")


def write_model(model, tok, folder: Path, card: str) -> None:
    """Write model (in bfloat16, half the size), tokenizer and card."""
    model.to(torch.bfloat16).save_pretrained(folder, safe_serialization=True)
    tok.save_pretrained(folder)
    # The class name that every version of transformers has, and nothing that depends on this machine.
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8")) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    settings = {key: value for key, value in settings.items() if key not in ("backend", "is_local")}
    path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    (folder / "model.safetensors").chmod(0o644)
    (folder / "README.md").write_text(card, encoding="utf-8")


def round_to_shipped(model):
    """The model as it ships: weights rounded to bfloat16, computed in float32."""
    return model.to(torch.bfloat16).to(torch.float32)
