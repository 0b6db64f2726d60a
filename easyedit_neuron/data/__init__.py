"""Edit data: the files that users of EasyEdit already have, and the shipped tiny-world, as EasyEdit requests.

A request is ``{"prompt", "subject", "target_new", "ground_truth" (str or None), "rephrase_prompt" (only if
the record has one), "locality": {kind: {"prompt", "ground_truth"}}, "portability": {kind: {...}}}``.
"""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from .. import resources
from ..errors import DataError
from ..utils.shown import shown
from ..utils.spelling import tidied_all
from ..utils.suggest import did_you_mean
from .datasets import records_of
from .files import read_records
from .generation_prompts import KIND, has_generation_prompts, separated
from .record import Record
from .shapes import SHAPES, detect_shape
from .splits import split

__all__ = ["load", "retained", "text", "SHAPES"]

LOG = logging.getLogger(__name__)
Invalid = Literal["error", "skip"]
Rephrasings = Literal["first", "all"]
Part = Literal["all", "choose", "report"]
CHOOSE_SIZE, SPLIT_SEED = 150, 0
Split = Literal["train", "heldout"]


def load(
    source: str | Path | Sequence[Any],
    shape: str | None = None,
    size: int | None = None,
    invalid: Invalid = "error",
    rephrasings: Rephrasings = "first",
    part: Part = "all",
) -> list[dict[str, Any]]:
    """Read edit requests; ``DataError`` names file, record index and field.

    Args:
        source: ``"real-world"``, ``"tiny-world"``, a JSON file with a list of records, such a list, or an
            object of EasyEdit's ``CounterFactDataset``, ``KnowEditDataset`` or ``WikiRecentDataset`` (which
            read less of a file).
        shape: ``"counterfact"`` (EasyEdit's flat one), ``"counterfact_nested"`` (ROME/MEMIT), ``"zsre"``
            (MEND), ``"knowedit"``, or one of ``benchmarks.py``; by default the keys of the first record
            decide. In EasyEdit's flat file, rephrasings that are CounterFact's generation prompts become
            portability ``generation``, with a warning.
        size: number of valid requests, from the beginning of the file or the part; by default all.
        invalid: whether a record that makes no valid request is an ``"error"``, or is left out (``"skip"``)
            with a warning that names it.
        rephrasings: ``"first"``: ``rephrase_prompt`` is one text, as in EasyEdit; ``"all"``: the list of all
            texts, where a record has several (CounterFact's ``paraphrase_prompts``). Gen is then their mean.
        part: ``"choose"``: the ``CHOOSE_SIZE`` requests on which settings are chosen; ``"report"``: those of
            the rest that share no subject and no prompt with them, for results; see ``splits``.
    """
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
        raise DataError(f"size must be an integer of at least 1, not {shown(size)}")
    _check_choice("value of invalid", invalid, get_args(Invalid))
    _check_choice("part", part, get_args(Part))
    _check_choice("value of rephrasings", rephrasings, get_args(Rephrasings))
    if shape is not None:
        _check_choice("data shape", shape, SHAPES)
    if isinstance(source, (str, Path)):
        path = _locate(source, f"edits_{shape or 'knowedit'}.json")
        if str(source) in resources.SHIPPED_DATA and not path.is_file():
            files = resources.data_dir(str(source)).glob("edits_*.json")
            shapes = sorted(file.stem.removeprefix("edits_") for file in files)
            raise DataError(f"{source} does not come in the shape {shape!r}: use {' or '.join(shapes)}")
        records = read_records(path)
    else:
        path, records = Path(type(source).__name__), records_of(source)
    shape = shape or detect_shape(path, records[0])
    convert = SHAPES[shape]
    requests: list[dict[str, Any]] = []
    skipped = 0
    for index, raw in enumerate(records):
        if part == "all" and size is not None and len(requests) >= size:
            break
        try:
            result = convert(Record(path, index, raw))
        except DataError as problem:
            if invalid == "error":
                raise DataError(f"{problem} (invalid='skip' leaves such records out)") from None
            LOG.warning("left out: %s", problem)
            skipped += 1
            continue
        for request in result if isinstance(result, list) else [result]:
            paraphrases = request.pop("paraphrase_prompts", [])
            if rephrasings == "all" and paraphrases:
                request["rephrase_prompt"] = paraphrases
            requests.append(request)
    if shape == "counterfact" and has_generation_prompts(records):
        requests, count = separated(requests)
        LOG.warning(
            "%s: %d of %d rephrasings are CounterFact's generation prompts; they are measured as portability "
            "'%s', not as Gen (docs/guides/easyedit.md)",
            *(path, count, len(requests), KIND),
        )
    if part == "all":
        requests = requests[:size]
    else:
        requests = split(requests, CHOOSE_SIZE, SPLIT_SEED)[part == "report"][:size]
    if size is not None and len(requests) < size:
        left_out = f" ({skipped} invalid records left out)" if skipped else ""
        raise DataError(
            f"{path}: {shown(size)} edits requested, the file has {len(requests)}{left_out}: ask for fewer"
        )
    if not requests:
        raise DataError(f"{path}: no valid record")
    return tidied_all(requests)


def retained(name_or_path: str | Path = "tiny-world") -> list[dict[str, str]]:
    """Facts about subjects that are never edited: ``[{"prompt", "ground_truth", "subject", "relation"}]``.

    Of the shipped world, or of a JSON file with such records, or ROME's ``known_1000.json`` (``prompt``,
    ``attribute``, ``subject``, ``relation_id``).
    """
    path = _locate(name_or_path, "retained.json")
    records = [Record(path, index, raw) for index, raw in enumerate(read_records(path))]
    names = {"prompt": "prompt", "ground_truth": "ground_truth", "subject": "subject", "relation": "relation"}
    if "attribute" in records[0].raw:
        names |= {"ground_truth": "attribute", "relation": "relation_id"}
    return [{field: record.string(name) for field, name in names.items()} for record in records]


def text(name_or_path: str | Path = "tiny-world", split: Split = "train") -> list[str]:
    """The lines of a text file that are not blank: of a file, or of a split of the shipped text."""
    _check_choice("split", split, get_args(Split))
    path = _locate(name_or_path, f"text_{split}.txt")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        raise DataError(f"{path}: cannot be read: {problem}") from None
    lines = [line.strip() for line in lines if line.strip()]
    if not lines:
        raise DataError(f"{path}: holds no text")
    return lines


def _check_choice(what: str, value: str, choices: Iterable[str]) -> None:
    if not isinstance(value, str) or value not in choices:
        raise DataError(f"unknown {what} {shown(value)}: {did_you_mean(value, choices)}")


def _locate(name_or_path: str | Path, shipped_file: str) -> Path:
    if str(name_or_path) in resources.SHIPPED_DATA:
        return resources.data_dir(str(name_or_path)) / shipped_file
    path = Path(name_or_path).expanduser()
    if not path.is_file():
        suggestion = did_you_mean(name_or_path, resources.SHIPPED_DATA)
        raise DataError(f"no data file {str(name_or_path)!r}, and no shipped data of that name; {suggestion}")
    return path
