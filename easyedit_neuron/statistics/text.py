"""The text that the covariance is measured on, read line by line and never held in memory as a whole."""

import importlib.util
import json
import logging
import random
from collections.abc import Iterator
from pathlib import Path

from .. import resources
from ..arch.view import ModelView
from ..errors import DataError
from ..utils.fingerprint import key_fingerprint, text_fingerprint
from ..utils.io import replacing
from ..utils.plain_trees import parse_json
from .self_text import SELF, write_self_text

LOG = logging.getLogger(__name__)
_SUFFIXES = (".txt", ".jsonl")
_FIELDS = ("text", "content", "sentence")
_HUB = {
    "wikitext": ("Salesforce/wikitext", "wikitext-103-raw-v1"),
    "wikitext2": ("Salesforce/wikitext", "wikitext-2-raw-v1"),
    "wikipedia": ("wikimedia/wikipedia", "20231101.en"),
}


class Texts:
    """Texts of a source in the source's order, read anew at each iteration; blank ones are left out.

    Args:
        source: one of

            - ``tiny-world``: the shipped text;
            - the path of a ``.txt`` file (one text a line) or a ``.jsonl`` file (field ``text``, ``content``
              or ``sentence``);
            - a name that ``datasets.load_dataset`` knows (``wikipedia``, ``wikitext``). Its first
              ``n_samples`` rows are streamed once into a ``.jsonl`` file, so only the first run needs the
              ``datasets`` package and a network.
        n_samples: most texts; of a file with more, that many are drawn.
        seed: of the draw.
        folder: folder of streamed texts.

    Attributes:
        fingerprint: hash of all texts of the source and, if there are more than ``n_samples``, of the draw.

    Raises:
        DataError: the file is missing, empty or malformed (it is read whole here); the name cannot be loaded;
            the file changes between its first reading and a later one.
    """

    def __init__(self, source: str, n_samples: int, seed: int, folder: Path):
        path = _local_file(source) or _stream(source, n_samples, folder)
        self._path, self._stamp = path, _stamp(path)
        count = 0

        def counted() -> Iterator[str]:
            nonlocal count
            for count, text in enumerate(_read(path), 1):  # noqa: B007
                yield text

        self.fingerprint = text_fingerprint(counted())
        if not count:
            raise DataError(f"mom2_dataset: {source!r} holds no text")
        self._drawn = None
        if count > n_samples:
            self._drawn = frozenset(random.Random(seed).sample(range(count), n_samples))
            self.fingerprint = key_fingerprint({"texts": self.fingerprint, "drawn": n_samples, "seed": seed})
        self._count = min(count, n_samples)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[str]:
        self._check_unchanged()
        for index, text in enumerate(_read(self._path)):
            if self._drawn is None or index in self._drawn:
                yield text
        self._check_unchanged()

    def _check_unchanged(self) -> None:
        if _stamp(self._path) != self._stamp:
            raise DataError(f"mom2_dataset: {str(self._path)!r} was changed while it was in use; start again")


def open_texts(view: ModelView, tok, source: str, n_samples: int, seed: int, folder: Path) -> Texts:
    """The texts of a source; those that the model writes itself are written first (``self``)."""
    if source == SELF:
        source = str(write_self_text(view, tok, n_samples, seed, folder))
    return Texts(source, n_samples, seed, folder)


def enough_texts(d_ff: int) -> int:
    """Texts of about 100 tokens for the covariance of ``d_ff`` keys: about 16 tokens for each.

    ``d_ff`` is the model's own (``arch.widen.own_width``): room for edits would have the same model write
    another text for every number of edits.

    Measured on SmolLM2 (``studies.covariance_text``): after 100 edits nothing differs any more from four
    times as many, and with a third of them only the perplexity does, a little.
    """
    return max(20, d_ff // 6)


def is_local(source: str) -> bool:
    """Whether the text is the model's own, shipped or in a file, and no data set of the hub."""
    return source in (SELF, "tiny-world") or Path(source).suffix in _SUFFIXES


def check_source(source: str, n_samples: int | None, folder: Path) -> None:
    """Raise ``DataError`` if ``Texts`` would find no file and could load none. Reads and loads nothing."""
    if source == SELF or _local_file(source) is not None:
        return
    if n_samples is not None and _stream_target(source, n_samples, folder)[1].is_file():
        return
    if importlib.util.find_spec("datasets") is None:
        raise DataError(
            f"mom2_dataset: {source!r} is neither 'self', 'tiny-world' nor a .txt or .jsonl file, and to "
            "load it as a data set needs the package 'datasets', which is not installed; name a local text "
            "file, write 'self' (the model writes the text), or install datasets"
        )


def _local_file(source: str) -> Path | None:
    """The file that a source names, or ``None`` for the name of a data set."""
    if source == "tiny-world":
        path = resources.data_dir("tiny-world") / "text_train.txt"
    else:
        path = Path(source).expanduser()
    if path.suffix not in _SUFFIXES:
        return None
    if not path.is_file():
        raise DataError(f"mom2_dataset: no file {str(path)!r}; name a text file, or 'tiny-world'")
    return path


def _stream_target(name: str, n_samples: int, folder: Path) -> tuple[tuple[str, ...], Path]:
    """Arguments of ``load_dataset`` for a data set of the hub, and the file for its texts."""
    dataset = _HUB.get(name, (name,))
    return dataset, folder / f"texts-{key_fingerprint({'dataset': dataset, 'rows': n_samples})}.jsonl"


def _stream(name: str, n_samples: int, folder: Path) -> Path:
    """The file with the first rows of a data set of the hub, streamed if it does not exist."""
    dataset, path = _stream_target(name, n_samples, folder)
    if path.is_file():
        LOG.info("mom2_dataset %r: using the texts in %s", name, path)
        return path
    try:
        from datasets import load_dataset

        rows = load_dataset(*dataset, split="train", streaming=True).take(n_samples)
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part, open(part, "w", encoding="utf-8") as file:
            for row in rows:
                file.write(json.dumps({"text": next(row[f] for f in _FIELDS if f in row)}) + "\n")
    except Exception as problem:
        raise DataError(
            f"mom2_dataset: {name!r} is neither a .txt or .jsonl file nor a data set that can be loaded here "
            f"({problem!r}); name a local text file instead"
        ) from problem
    LOG.info("mom2_dataset %r: its first %d texts are in %s", name, n_samples, path)
    return path


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_size, status.st_mtime_ns


def _read(path: Path) -> Iterator[str]:
    try:
        # Iterating over a file splits at newlines only: JSON strings may hold U+2028 unescaped.
        with open(path, encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    text = line.rstrip("\n") if path.suffix == ".txt" else _field(path, number, line)
                    if text.strip():
                        yield text
    except UnicodeDecodeError as problem:
        raise DataError(f"mom2_dataset: {str(path)!r} is not UTF-8 text ({problem})") from problem


def _field(path: Path, number: int, line: str) -> str:
    try:
        record = parse_json(line)
        text = record if isinstance(record, str) else next(record[f] for f in _FIELDS if f in record)
        text.encode()  # refuses other types, and half a surrogate pair before the tokenizer meets it
        return text
    except (ValueError, AttributeError, TypeError, StopIteration) as problem:
        raise DataError(
            f"{path}, line {number}: needs a JSON object with a string in one of {_FIELDS}"
        ) from problem
