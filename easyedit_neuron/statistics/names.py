"""Names that occur in texts, and the keys of the edited layers at their last tokens."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from ..arch.capture import Capture, take
from ..arch.tokens import pad, subject_last_index, token_ids
from ..arch.view import ModelView
from ..arch.widen import own_width
from ..errors import DataError
from ..utils.progress import progress
from . import NAME_TEMPLATES

NAME = re.compile(r"(?<=[a-z,] )[A-Z][\w'’-]+(?: (?:of |the |de |van |von )?[A-Z][\w'’-]+)*")
"""A run of capitalised words behind a small letter, so that the beginning of a sentence is no name."""
MOST_NAMES = 1500
ROWS_PER_FORWARD = 64


def names_in(texts: Iterable[str]) -> list[str]:
    """Names in texts, each once, in the order in which they first occur, at most ``MOST_NAMES``."""
    names = dict.fromkeys(name for text in texts for name in NAME.findall(text))
    return list(names)[:MOST_NAMES]


def read_names(file: Path) -> list[str]:
    """The names in a text file, one a line.

    Raises:
        DataError: the file cannot be read, or has none.
    """
    try:
        names = [line.strip() for line in file.expanduser().read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as problem:
        raise DataError(f"mom2_names: {file}: {problem}") from None
    names = list(dict.fromkeys(name for name in names if name))
    if not names:
        raise DataError(f"mom2_names: {file} has no names; give one a line")
    return names


def name_rows(tok, names: Sequence[str], templates: Sequence[str] = NAME_TEMPLATES) -> list[list[int]]:
    """Token ids of the templates in turn, each with one name and up to its last token; rows of a single
    token, which are first tokens of a text, are left out."""
    rows = []
    for number, name in enumerate(names):
        template = templates[number % len(templates)]
        ids = token_ids(tok, template.replace("{}", name))
        rows.append(ids[: subject_last_index(tok, template, name) + 1])
    return [row for row in rows if len(row) > 1]


@torch.no_grad()
def name_keys(
    view: ModelView, tok, names: Sequence[str], layers: list[int], dtype: torch.dtype
) -> dict[int, torch.Tensor]:
    """Layer -> keys [n, d_ff] at the last tokens of n names in ``NAME_TEMPLATES``, on the layer's device.

    Raises:
        DataError: no name.
    """
    rows = sorted(name_rows(tok, names), key=len)
    if not rows:
        raise DataError("mom2_dataset has no names (capitalised words behind small letters)")
    parts: dict[int, list[torch.Tensor]] = {layer: [] for layer in layers}
    with progress("keys of names", len(rows), "name") as shown:
        for start in range(0, len(rows), ROWS_PER_FORWARD):
            batch = pad(rows[start : start + ROWS_PER_FORWARD], view.input_device)
            last = batch.lengths - 1
            with Capture(view, layers, stop_after="key") as seen:
                view.model(**batch.inputs, use_cache=False)
            for layer in layers:
                keys = take(seen.key[layer], torch.arange(len(last)), last)
                parts[layer].append(keys[:, : own_width(view)].to(dtype))
            shown.add(len(last))
    return {layer: torch.cat(keys) for layer, keys in parts.items()}
