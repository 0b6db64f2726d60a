"""Documents of tiny-world's tasks, with the fields that the YAML in ``configs/tiny_world`` names."""

from typing import Any

from datasets import Dataset

from .. import data, resources
from ..data.files import read_records

FIELDS = ("prompt", "choices", "answer")


def facts(**_: Any) -> dict[str, Dataset]:
    """Multiple choice over facts never edited: ``prompt``, four ``choices``, ``answer`` (position)."""
    return {"test": _questions("fact")}


def hops(**_: Any) -> dict[str, Dataset]:
    """Multiple choice over second hops; the same fields."""
    return {"test": _questions("hop")}


def text(**_: Any) -> dict[str, Dataset]:
    """Lines of held-out text; ``text``."""
    return {"test": Dataset.from_list([{"text": line} for line in data.text("tiny-world", "heldout")])}


def text_results(doc: dict[str, str], results: list[tuple[float, bool]]) -> dict[str, tuple[float, int]]:
    """Log-likelihood (nats) of a line with its numbers of words and bytes, for weighted perplexities."""
    line, (log_likelihood, _) = doc["text"], results[0]
    return {
        "word_perplexity": (log_likelihood, len(line.split())),
        "byte_perplexity": (log_likelihood, len(line.encode("utf-8"))),
    }


def _questions(kind: str) -> Dataset:
    records = read_records(resources.data_dir("tiny-world") / "questions.json")
    questions = [{name: record[name] for name in FIELDS} for record in records if record["kind"] == kind]
    return Dataset.from_list(questions)
