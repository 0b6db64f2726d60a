"""Text that the model writes itself, for statistics without a corpus (``mom2_dataset: self``)."""

import hashlib
import json
import logging
from pathlib import Path

import torch

from ..arch.tokens import left_pad, text_ids
from ..arch.view import ModelView
from ..errors import DataError
from ..utils.fingerprint import key_fingerprint, model_fingerprint
from ..utils.io import replacing, write_text_once
from ..utils.progress import progress
from ..utils.random_state import random_states, set_random_states

LOG = logging.getLogger(__name__)
SELF = "self"
TOKENS_PER_TEXT = 100
"""Longest text, opener included."""
BATCH = 64

OPENERS = (
    *("The", "A", "In", "It", "This", "When", "For", "He", "She"),
    *("They", "We", "I", "You", "One", "On", "At"),
    *("As", "After", "Before", "During", "Since", "While", "Although", "However", "If", "There", "These"),
    *("Many", "Some", "Most", "Our", "His", "Her", "Its", "Their", "From", "With", "By", "To", "How"),
    *("The first", "The city of", "The people", "In the early", "One of the", "According to", "It was"),
    *("Born in", "The history of", "The name", "A new", "Today", "In this", "There are", "The company"),
)
"""Beginnings of the texts, in turn; a tokenizer that puts BOS in front of a text does so here too."""


def write_self_text(view: ModelView, tok, n_texts: int, seed: int, folder: Path) -> Path:
    """A ``.jsonl`` file with ``n_texts`` texts that the model samples at temperature 1 behind ``OPENERS``.

    The texts are written once for a model and a seed; a longer file begins with those of a shorter one. They
    are saved in batches, so that a kill loses one of them. Weights, tokenizer and the global random state
    stay as they are.

    Raises:
        DataError: the model writes nothing that is text; the file is not as it was written.
    """
    provenance = {"model": model_fingerprint(view.model), "seed": seed, "openers": OPENERS, "batch": BATCH}
    batches = folder / f"texts-self-{key_fingerprint(provenance)}"
    for path in folder.glob(f"{batches.name}-{n_texts}-*.jsonl"):
        if not path.stem.endswith(_digest(path.read_bytes())):
            raise DataError(
                f"{path}: was changed since the model wrote it; delete it to have it written anew"
            )
        return path
    batches.mkdir(parents=True, exist_ok=True)
    before = random_states()
    try:
        with progress("text for the covariance", n_texts, "text") as shown:
            for start in range(0, n_texts, BATCH):
                _write_batch(view, tok, seed, start, batches / f"{start:06d}.jsonl")
                shown.add(min(BATCH, n_texts - start))
    finally:
        set_random_states(before)
    files = [batches / f"{start:06d}.jsonl" for start in range(0, n_texts, BATCH)]
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines(keepends=True)]
    if not lines:
        raise DataError("mom2_dataset: the model writes no text of its own; name a text file")
    text = "".join(lines[:n_texts])
    path = folder / f"{batches.name}-{n_texts}-{_digest(text.encode('utf-8'))}.jsonl"
    write_text_once(path, text)
    return path


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _write_batch(view: ModelView, tok, seed: int, start: int, path: Path) -> None:
    """Write the texts ``start`` to ``start + BATCH`` of a seed, unless they are there."""
    if path.is_file():
        return
    torch.manual_seed(seed + start)
    openers = [OPENERS[(start + number) % len(OPENERS)] for number in range(BATCH)]
    texts = sample_texts(view.model, tok, openers, TOKENS_PER_TEXT)
    with replacing(path) as part:
        lines = (json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
        Path(part).write_text("".join(lines), encoding="utf-8")


@torch.no_grad()
def sample_texts(model: torch.nn.Module, tok, openers: list[str], max_tokens: int) -> list[str]:
    """Continue every opener by sampling at temperature 1, to the end of the text or ``max_tokens``."""
    device = model.get_input_embeddings().weight.device
    rows = text_ids(tok, openers)
    filler = tok.pad_token_id if tok.pad_token_id is not None else tok.eos_token_id or 0
    ids, mask = left_pad(rows, device, filler)
    how = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "pad_token_id": filler}
    written = model.generate(input_ids=ids, attention_mask=mask, max_length=max_tokens, **how)
    texts = [
        tok.decode(row[ids.shape[1] - len(start) :], skip_special_tokens=True)
        for row, start in zip(written, rows)
    ]
    return [text.strip() for text in texts if text.strip()]
