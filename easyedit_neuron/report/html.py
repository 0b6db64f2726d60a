"""Parts of an HTML page: the document, tables, and tables that open on a click."""

import base64
import hashlib
from collections.abc import Collection, Sequence
from html import escape
from importlib.resources import files

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""Content policy: whatever the data holds, no script can run but the one that ``document`` names."""


def document(title: str, body: Sequence[str], script: str | None = None) -> str:
    """A whole page with its style sheet; ``body`` are parts that are HTML already.

    ``script``: a file of this folder, at the end of the page. The policy allows this text and no other.
    """
    style, policy, ending = _file("page.css"), POLICY, []
    if script is not None:
        code = _file(script)
        digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
        policy, ending = f"{POLICY}; script-src 'sha256-{digest}'", [f"<script>{code}</script>"]
    head = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title>",
        f"<style>\n{style}</style>\n</head>\n<body>",
    ]
    return "\n".join([*head, *body, *ending, "</body>\n</html>\n"])


def _file(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def table(cells: list[list[str]], text: Sequence[int] = ()) -> str:
    """A table whose first row and column are headings; the columns in ``text`` hold text, not numbers."""
    head, *body = cells
    text_columns = {number % len(head) for number in text}
    rows = "\n".join(
        f"<tr><th>{escape(first)}</th>{_row('td', [first, *rest], text_columns, 1)}</tr>"
        for first, *rest in body
    )
    heading = f"<thead><tr>{_row('th', head, text_columns)}</tr></thead>"
    return f'<div class="wide box"><table>{heading}\n<tbody>{rows}</tbody></table></div>'


def details(title: str, cells: list[list[str]], text: Sequence[int] = ()) -> str:
    """A table that opens on a click on its title; empty where the table has no rows."""
    if len(cells) < 2:
        return ""
    return f"<details><summary>{escape(title)}</summary>{table(cells, text)}</details>"


def _row(tag: str, cells: Sequence[str], text_columns: Collection[int], start: int = 0) -> str:
    classes = [' class="text"' if column in text_columns else "" for column in range(len(cells))]
    parts = [f"<{tag}{kind}>{escape(cell)}</{tag}>" for kind, cell in zip(classes, cells)]
    return "".join(parts[start:])
