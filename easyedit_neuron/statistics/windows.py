"""From texts to padded batches, a window of texts at a time."""

from collections.abc import Iterable, Iterator

WINDOW_CHARACTERS = 1 << 19
"""About 130,000 tokens of English: many batches, so that sorting by length leaves little padding, and a few
MB of token ids."""


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


def pieces(tok, texts: list[str], max_length: int) -> list[list[int]]:
    """Token ids of the texts, long ones cut into pieces of at most ``max_length``, empty ones left out;
    longest first."""
    rows = []
    for ids in tok(texts, add_special_tokens=True, verbose=False)["input_ids"]:
        rows += [ids[start : start + max_length] for start in range(0, len(ids), max_length)]
    return sorted(rows, key=len, reverse=True)


def head(rows: list[list[int]], tokens: int) -> list[list[int]]:
    """The first rows (longest first) that make at most ``tokens`` tokens with their padding and are at least
    three quarters as long as the longest; at least one row. So at most a quarter of a batch is padding,
    however few texts there are.
    """
    width, most = len(rows[0]), max(1, tokens // len(rows[0]))
    return [row for row in rows[:most] if 4 * len(row) >= 3 * width]
