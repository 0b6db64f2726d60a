"""Writes the shipped files: the edits in three shapes, retained facts, questions, text, and the trained model
with its card."""

import json
from pathlib import Path

import torch

from . import records
from .corpus import Corpus, held_out_text, shipped_text
from .questions import questions
from .world import World

EDITS = 2600
RETAINED = 600


def write_data(world: World, corpus: Corpus, folder: Path, edits: int = EDITS) -> None:
    """All data files of a world."""
    folder.mkdir(parents=True, exist_ok=True)
    cases = records.edit_cases(world, corpus, edits, world.seed)
    _json(folder / "edits_knowedit.json", cases)
    _json(folder / "edits_counterfact.json", [records.as_counterfact(case) for case in cases])
    _json(folder / "edits_zsre.json", [records.as_zsre(case) for case in cases])
    _json(folder / "retained.json", records.retained_facts(world, corpus, RETAINED, world.seed))
    _json(folder / "questions.json", questions(world, corpus, RETAINED, world.seed))
    (folder / "text_train.txt").write_text(
        "\n".join(shipped_text(world, corpus, world.seed)) + "\n", encoding="utf-8"
    )
    (folder / "text_heldout.txt").write_text(
        "\n".join(held_out_text(world, corpus, world.seed)) + "\n", encoding="utf-8"
    )


def _json(path: Path, rows: list[dict]) -> None:
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def write_model(model, tok, folder: Path, card: str) -> None:
    """Model in bfloat16 (half the size; what is measured for the card is the rounded model), tokenizer and
    card."""
    model.to(torch.bfloat16).save_pretrained(folder, safe_serialization=True)
    tok.save_pretrained(folder)
    # the class name that every version of transformers knows, and nothing that depends on this machine
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8")) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    settings = {key: value for key, value in settings.items() if key not in ("backend", "is_local")}
    path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    (folder / "model.safetensors").chmod(0o644)
    (folder / "README.md").write_text(card, encoding="utf-8")


def round_to_shipped(model):
    """The model as it ships: weights rounded to bfloat16, computed in float32."""
    return model.to(torch.bfloat16).to(torch.float32)
