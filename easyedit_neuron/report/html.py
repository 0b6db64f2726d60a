"""Pieces of the pages: the document, tables, and what opens on a click."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib.resources import files

# No script can run in the page, whatever stands in the data.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def document(title: str, body: Sequence[str]) -> str:
    """A whole page with its style sheet; ``body`` are parts that are HTML already."""
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title>",
            f"<style>\n{files(__package__).joinpath('page.css').read_text(encoding='utf-8')}</style>\n</head>\n<body>",
            *body,
            "</body>\n</html>\n",
        ]
    )


def table(cells: list[list[str]], text: Sequence[int] = ()) -> str:
    """A table; the first row and column are headings, the columns in ``text`` hold text rather than
    numbers."""
    head, *body = cells
    words = {number % len(head) for number in text}
    rows = []
    for first, *rest in body:
        columns = "".join(
            f'<td class="text">{escape(cell)}</td>' if column in words else f"<td>{escape(cell)}</td>"
            for column, cell in enumerate(rest, 1)
        )
        rows.append(f"<tr><th>{escape(first)}</th>{columns}</tr>")
    heads = "".join(
        f'<th class="text">{escape(cell)}</th>' if column in words else f"<th>{escape(cell)}</th>"
        for column, cell in enumerate(head)
    )
    return f'<div class="wide box"><table><thead><tr>{heads}</tr></thead>\n<tbody>{chr(10).join(rows)}</tbody></table></div>'


def details(title: str, cells: list[list[str]], text: Sequence[int] = ()) -> str:
    """A table behind its title; nothing where it has no rows."""
    if len(cells) < 2:
        return ""
    return f"<details><summary>{escape(title)}</summary>{table(cells, text)}</details>"
