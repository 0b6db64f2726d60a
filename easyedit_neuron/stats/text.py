"""The text that the covariance is measured on."""

import json
import random
from pathlib import Path

from .. import resources
from ..errors import DataError

_FIELDS = ("text", "content", "sentence")


def load_texts(source: str, n_samples: int, seed: int = 0) -> list[str]:
    """Texts of ``source``, at most ``n_samples`` of them, drawn with ``seed`` where there are more.

    Args:
        source: ``tiny-world`` (the shipped body), the path of a ``.txt`` file (one text a line) or a ``.jsonl`` file (field
            ``text``, ``content`` or ``sentence``), or a name that ``datasets.load_dataset`` knows (``wikipedia``,
            ``wikitext``), which needs the ``datasets`` package and a network or its cache.

    Raises:
        DataError: the file is missing, empty or malformed, or the name cannot be loaded.
    """
    path = resources.data_dir("tiny-world") / "text_train.txt" if source == "tiny-world" else Path(source).expanduser()
    if path.suffix in (".txt", ".jsonl"):
        if not path.is_file():
            raise DataError(f"mom2_dataset: no file {str(path)!r}")
        texts = _read(path)
    else:
        texts = _from_datasets(source, n_samples)
    texts = [text for text in texts if text.strip()]
    if not texts:
        raise DataError(f"mom2_dataset: {source!r} holds no text")
    if len(texts) > n_samples:
        texts = random.Random(seed).sample(texts, n_samples)
    return texts


def _read(path: Path) -> list[str]:
    try:
        # not splitlines: JSON strings may hold U+2028 and its like unescaped
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as problem:
        raise DataError(f"mom2_dataset: {str(path)!r} is not UTF-8 text ({problem})") from problem
    if path.suffix == ".txt":
        return lines
    texts = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            text = record if isinstance(record, str) else next(record[f] for f in _FIELDS if f in record)
            if not isinstance(text, str):
                raise TypeError(f"{text!r} is not a string")
            texts.append(text)
        except (json.JSONDecodeError, TypeError, StopIteration) as problem:
            raise DataError(f"{path}, line {number}: needs a JSON object with a string in one of {_FIELDS}") from problem
    return texts


def _from_datasets(name: str, n_samples: int) -> list[str]:
    configs = {"wikitext": ("wikitext", "wikitext-103-raw-v1"), "wikipedia": ("wikimedia/wikipedia", "20231101.en")}
    try:
        from datasets import load_dataset
        rows = load_dataset(*configs.get(name, (name,)), split="train", streaming=True)
        field = next(f for f in _FIELDS if f in next(iter(rows)))
        return [row[field] for row in rows.take(n_samples)]
    except Exception as problem:
        raise DataError(
            f"mom2_dataset: {name!r} is neither a .txt or .jsonl file nor a data set that can be loaded here ({problem}); "
            "name a local text file instead") from problem
