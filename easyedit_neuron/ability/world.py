"""Documents of the tasks of the shipped world, in the shape that lm-eval wants."""

from __future__ import annotations

from typing import Any

from datasets import Dataset

from .. import data, resources
from ..data.json_records import read_records

FIELDS = ("prompt", "choices", "answer")


def facts(**_: Any) -> dict[str, Dataset]:
    """Multiple choice over facts that are never edited; ``prompt``, ``choices`` (4), ``answer``
    (position)."""
    return {"test": _questions("fact")}


def hops(**_: Any) -> dict[str, Dataset]:
    """Multiple choice over second hops; the same fields."""
    return {"test": _questions("hop")}


def text(**_: Any) -> dict[str, Dataset]:
    """Lines of held-out text; ``text``."""
    return {"test": Dataset.from_list([{"text": line} for line in data.text("tiny-world", "heldout")])}


def text_results(doc: dict[str, str], results: list[tuple[float, bool]]) -> dict[str, tuple[float, int]]:
    """Log-likelihood (nats) of a line, and its number of words and of bytes: what lm-eval's weighted
    perplexities are made of."""
    line, (log_likelihood, _) = doc["text"], results[0]
    return {
        "word_perplexity": (log_likelihood, len(line.split())),
        "byte_perplexity": (log_likelihood, len(line.encode("utf-8"))),
    }


def _questions(kind: str) -> Dataset:
    records = read_records(resources.data_dir("tiny-world") / "questions.json")
    return Dataset.from_list(
        [{name: record[name] for name in FIELDS} for record in records if record["kind"] == kind]
    )
