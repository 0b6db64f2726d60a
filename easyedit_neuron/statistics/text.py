"""The text that the covariance is measured on, read line by line: never all of it in memory."""

import importlib.util
import json
import logging
import random
from collections.abc import Iterator
from pathlib import Path

from .. import resources
from ..errors import DataError
from ..utils.fingerprint import key_fingerprint, text_fingerprint
from ..utils.io import replacing

LOG = logging.getLogger(__name__)
_FIELDS = ("text", "content", "sentence")
_HUB = {
    "wikitext": ("Salesforce/wikitext", "wikitext-103-raw-v1"),
    "wikitext2": ("Salesforce/wikitext", "wikitext-2-raw-v1"),
    "wikipedia": ("wikimedia/wikipedia", "20231101.en"),
}


class Texts:
    """Texts of a source in the source's order, read anew at each iteration; blank ones are left out.

    Args:
        source: ``tiny-world`` (the shipped body), the path of a ``.txt`` file (one text a line) or a
            ``.jsonl`` file (field ``text``, ``content`` or ``sentence``), or a name that
            ``datasets.load_dataset`` knows (``wikipedia``, ``wikitext``). Of the last, the first
            ``n_samples`` rows are streamed once into a ``.jsonl`` file below ``folder``, which later runs
            read: only the first needs the ``datasets`` package and a network.
        n_samples: most texts; where a file has more, that many are drawn with ``seed``.
        seed: of the draw.
        folder: where streamed texts are kept.

    Attributes:
        fingerprint: hash of all texts of the source and, where there are more than ``n_samples``, of the
            draw.

    Raises:
        DataError: the file is missing, empty or malformed (all of it is read here, before anything is
            measured), the name cannot be loaded, or the file changes between its first reading and a later
            one.
    """

    def __init__(self, source: str, n_samples: int, seed: int, folder: Path):
        path = _named(source)
        if path is None:
            path = _streamed(source, n_samples, folder)
        self._path, self._stamp = path, _stamp(path)
        count = 0

        def counted() -> Iterator[str]:
            nonlocal count
            for text in _read(path):
                count += 1
                yield text

        self.fingerprint = text_fingerprint(counted())
        if not count:
            raise DataError(f"mom2_dataset: {source!r} holds no text")
        self._chosen = None
        if count > n_samples:
            self._chosen = frozenset(random.Random(seed).sample(range(count), n_samples))
            self.fingerprint = key_fingerprint({"texts": self.fingerprint, "drawn": n_samples, "seed": seed})
        self._count = min(count, n_samples)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[str]:
        self._check_unchanged()
        for index, text in enumerate(_read(self._path)):
            if self._chosen is None or index in self._chosen:
                yield text
        self._check_unchanged()

    def _check_unchanged(self) -> None:
        if _stamp(self._path) != self._stamp:
            raise DataError(f"mom2_dataset: {str(self._path)!r} was changed while it was in use; start again")


def check_source(source: str, n_samples: int, folder: Path) -> None:
    """``DataError`` where :class:`Texts` would find no file and has no means to load one; nothing is read and
    nothing loaded."""
    if _named(source) is not None or _kept(source, n_samples, folder)[1].is_file():
        return
    if importlib.util.find_spec("datasets") is None:
        raise DataError(
            f"mom2_dataset: {source!r} is neither 'tiny-world' nor a .txt or .jsonl file, and to load it as a data "
            "set needs the package 'datasets', which is not installed; name a local text file, or install datasets"
        )


def _named(source: str) -> Path | None:
    """The file that a source names, None for the name of a data set."""
    path = (
        resources.data_dir("tiny-world") / "text_train.txt"
        if source == "tiny-world"
        else Path(source).expanduser()
    )
    if path.suffix not in (".txt", ".jsonl"):
        return None
    if not path.is_file():
        raise DataError(f"mom2_dataset: no file {str(path)!r}; name a text file, or 'tiny-world'")
    return path


def _kept(name: str, n_samples: int, folder: Path) -> tuple[dict, Path]:
    """What is streamed of a data set of the hub, and the file that it is kept in."""
    about = {"dataset": _HUB.get(name, (name,)), "rows": n_samples}
    return about, folder / f"texts-{key_fingerprint(about)}.jsonl"


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_size, status.st_mtime_ns


def _read(path: Path) -> Iterator[str]:
    try:
        # lines of a file end at newlines only, as they must: JSON strings may hold U+2028 and its like
        # unescaped
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
        record = json.loads(line)
        text = record if isinstance(record, str) else next(record[f] for f in _FIELDS if f in record)
        text.encode()  # an attribute of strings alone; half a surrogate pair fails here and not in the tokenizer
        return text
    except (ValueError, AttributeError, TypeError, StopIteration) as problem:
        raise DataError(
            f"{path}, line {number}: needs a JSON object with a string in one of {_FIELDS}"
        ) from problem


def _streamed(name: str, n_samples: int, folder: Path) -> Path:
    """The file with the first rows of a data set of the hub, streamed there if it does not exist."""
    about, path = _kept(name, n_samples, folder)
    if path.is_file():
        LOG.info("mom2_dataset %r: the texts kept in %s", name, path)
        return path
    try:
        from datasets import load_dataset

        rows = load_dataset(*about["dataset"], split="train", streaming=True).take(n_samples)
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part, open(part, "w", encoding="utf-8") as file:
            for row in rows:
                file.write(json.dumps({"text": next(row[f] for f in _FIELDS if f in row)}) + "\n")
    except Exception as problem:
        raise DataError(
            f"mom2_dataset: {name!r} is neither a .txt or .jsonl file nor a data set that can be loaded here ({problem!r}); "
            "name a local text file instead"
        ) from problem
    LOG.info("mom2_dataset %r: its first %d texts are kept in %s", name, n_samples, path)
    return path
