"""The page's first table: edits as people read them, with what the model said before and says now."""

from collections.abc import Sequence
from html import escape

from .runs import EditLine, Run
from .sentences import open_ended, printable, spoken

NAME, TITLE, SCRIPT = "answers", "What the model says", "answers.js"
HOLDS, LOST = "✓ holds", "✗ does not hold"
_COLUMNS = ("edit", "prompt and new object", "before", "now", "rephrased", "neighbour", "")
_NOTE = (
    "Greedy answers of the untouched model (before) and at the end of the run (now). An edit holds where the "
    "model predicts the whole new object after the edited prompt; ✗ marks answers that miss it, and "
    "neighbours whose answer has changed."
)


def section(runs: Sequence[Run]) -> str:
    """The table with a search box, edits of several runs side by side; empty where no answers were kept."""
    edits = [(edit.position, index, edit) for index, run in enumerate(runs) for edit in run.edits]
    edits = sorted((entry for entry in edits if entry[2].answers), key=lambda entry: entry[:2])
    if not edits:
        return ""
    several = len(runs) > 1
    rows = [_row(edit, [runs[index].label] if several else []) for _, index, edit in edits]
    columns = [_COLUMNS[0], *["run"] * several, *_COLUMNS[1:]]
    heading = "".join(f'<th class="text">{escape(name)}</th>' for name in columns)
    return "\n".join(
        [
            f'<section><h2 id="{NAME}">{escape(TITLE)}</h2>',
            f'<p class="note">{escape(_counts(runs))} {escape(_NOTE)}</p>',
            '<p class="search" hidden><label>Search <input type="search" id="search" autocomplete="off">'
            '</label> <span id="matches" class="note"></span></p>',
            f'<div class="wide box tall"><table class="answers"><thead><tr>{heading}</tr></thead>',
            "<tbody>",
            *rows,
            "</tbody></table></div></section>",
        ]
    )


def _counts(runs: Sequence[Run]) -> str:
    """How many edits are shown, and how many of them hold."""
    parts = []
    for run in runs:
        shown = [edit for edit in run.edits if edit.answers]
        held = sum(edit.final == 1.0 for edit in shown)
        if shown:
            start = f"{run.label}: " if len(runs) > 1 else ""
            parts.append(f"{start}{held:,} of {len(shown):,} edits hold ({len(run.edits):,} were made).")
    return " ".join(parts)


def _row(edit: EditLine, run: list[str]) -> str:
    rewrite, holds = edit.answers["rewrite"], edit.final == 1.0
    cells = [
        *(escape(label) for label in run),
        f"{escape(printable(rewrite['prompt']))} <b>{escape(printable(edit.target))}</b>",
        _said(rewrite["before"]),
        _said(rewrite["final"], edit.final == 1.0 if edit.final is not None else None),
        _rephrase(edit),
        _neighbor(edit),
        f'<span class="{"right" if holds else "wrong"}">{HOLDS if holds else LOST}</span>',
    ]
    columns = "".join(f'<td class="text">{cell}</td>' for cell in cells)
    return f"<tr><th>{edit.position + 1:,}</th>{columns}</tr>"


def _rephrase(edit: EditLine) -> str:
    entry = edit.answers.get("rephrase")
    if entry is None:
        return "-"
    right = None if edit.rephrase is None else edit.rephrase == 1.0
    return f"{_quoted(entry)}{_said(entry['final'], right)}"


def _neighbor(edit: EditLine) -> str:
    entry = edit.answers.get("neighbor")
    if entry is None:
        return "-"
    same = entry["before"] == entry["final"]
    return f"{_quoted(entry)}{_said(entry['before'])} → {_said(entry['final'], None if same else False)}"


def _quoted(entry: dict[str, str]) -> str:
    text = open_ended(entry["prompt"]).replace(" ...", "\N{NO-BREAK SPACE}...")
    return f'<span class="prompt">{escape(text)}</span>'


def _said(answer: str, right: bool | None = None) -> str:
    """An answer, marked where it is right or wrong (None: neither)."""
    text = escape(spoken(answer))
    if right is None:
        return f"<span>{text}</span>"
    return f'<span class="right">{text}</span>' if right else f'<span class="wrong">✗ {text}</span>'
