"""From texts to batches of token rows, a window of texts at a time."""

from collections.abc import Iterable, Iterator

from ..arch.tokens import text_ids

WINDOW_CHARACTERS = 1 << 16
"""About 16,000 tokens of English, four batches: little padding after sorting, and seconds between two chances
to save."""


def windows(texts: Iterable[str], characters: int = WINDOW_CHARACTERS) -> Iterator[list[str]]:
    """Consecutive texts in groups that end as soon as they have ``characters`` characters."""
    window, size = [], 0
    for text in texts:
        window.append(text)
        size += len(text)
        if size >= characters:
            yield window
            window, size = [], 0
    if window:
        yield window


def pieces(tok, texts: list[str], max_length: int, first_only: bool = False) -> list[list[int]]:
    """Token ids of the texts, split into pieces of at most ``max_length``, or the first of each text alone;
    longest first, none empty."""
    rows = []
    for ids in text_ids(tok, texts):
        end = min(len(ids), max_length) if first_only else len(ids)
        rows += [ids[start : start + max_length] for start in range(0, end, max_length)]
    return sorted(rows, key=len, reverse=True)


def head(rows: list[list[int]], tokens: int) -> list[list[int]]:
    """The first batch of ``rows`` (longest first): at most ``tokens`` tokens with padding, at least one row.

    Rows shorter than three quarters of the longest wait for the next batch, so at most a quarter is padding.
    """
    width, most = len(rows[0]), max(1, tokens // len(rows[0]))
    return [row for row in rows[:most] if 4 * len(row) >= 3 * width]
