"""The bench in tables: a row per method, with intervals, and its differences to a baseline."""

from collections.abc import Iterable, Sequence
from typing import Any

from ..evaluation.intervals import mean_interval, paired_difference
from ..report.table import markdown_line
from ..utils.lists import mean
from .rows import CellRows

SHARES = {
    "rel": "Rel",
    "gen": "Gen",
    "rel_answered": "Rel answered",
    "gen_answered": "Gen answered",
    "rel_judged": "Rel judged",
    "gen_judged": "Gen judged",
    "loc": "Loc",
    "port": "portability",
}
TITLE = """# Edits that last: tables

Made by `easyedit-neuron bench lasting`. Brackets are 95% bootstrap intervals over records.
"""
COMPARED = ("rel", "gen", "rel_answered", "loc", "port")
Interval = tuple[float, float, float] | None


class MethodRows:
    """The cells of one method on one data set that differ in their seeds only.

    ``edits``: the number of edits that is looked at; only cells with this checkpoint count, of several with a
    seed the one that ends there (facts of subjects that it edits later are not asked either), else the
    longest.
    """

    def __init__(self, rows: Sequence[CellRows], edits: int):
        last_best = sorted(rows, key=lambda row: (row.cell.edits == edits, row.cell.edits))
        self.by_seed = {row.cell.seed: row for row in last_best if str(edits) in row.records}
        self.edits, self.cell = str(edits), rows[0].cell

    @property
    def label(self) -> str:
        batch = self.cell.batch_size
        return f"{self.cell.label}, batch {batch}" if batch > 1 else self.cell.label

    def values(self, column: str, seeds: Iterable[int] | None = None) -> list[float | None]:
        """One column of all seeds, one after the other."""
        chosen = sorted(self.by_seed) if seeds is None else seeds
        values: list[float | None] = []
        for records in (self.by_seed[seed].records[self.edits] for seed in chosen):
            values += records.get(column) or [None] * len(records["rel"])
        return values

    def has(self, column: str) -> bool:
        """Whether any seed measured a column."""
        return any(column in row.records[self.edits] for row in self.by_seed.values())

    def facts(self) -> list[float | None]:
        """Of every known fact of all seeds, 1 if it is still answered, else 0; in no order."""
        facts: list[float | None] = []
        for model in (row.model[self.edits] for row in self.by_seed.values()):
            count = model["retained_facts"] or 0
            right = round((model["retained"] or 0) * count)
            facts += [1.0] * right + [0.0] * (count - right)
        return facts

    def model(self, name: str) -> float | None:
        """Mean over seeds of a side effect or a cost."""
        return mean(row.model[self.edits].get(name) for row in self.by_seed.values())

    def seconds_per_edit(self) -> float | None:
        seconds = self.model("seconds_edit")
        return None if seconds is None else seconds / int(self.edits)


def methods(rows: Sequence[CellRows], data: str, edits: int) -> list[MethodRows]:
    """The methods that have a checkpoint after so many edits of a data set, in the order of their labels."""
    groups: dict[tuple, list[CellRows]] = {}
    for row in rows:
        if row.cell.data == data:
            groups.setdefault((row.cell.method, row.cell.changes, row.cell.batch_size), []).append(row)
    collected = [MethodRows(group, edits) for group in groups.values()]
    return sorted((method for method in collected if method.by_seed), key=lambda method: method.label)


def checkpoints(rows: Sequence[CellRows], data: str) -> list[int]:
    """Numbers of edits after which a data set was measured."""
    return sorted({int(edits) for row in rows if row.cell.data == data for edits in row.records})


def summary_table(rows: Sequence[CellRows], data: str, edits: int) -> str:
    """Means with 95% bootstrap intervals over records, and the side effects, as Markdown."""
    measured = methods(rows, data, edits)
    columns = [column for column in SHARES if any(method.has(column) for method in measured)]
    names = [SHARES[column] for column in columns]
    heading = ["method", "seeds", *names, "known facts", "KL", "perplexity", "fluency", "s/edit"]
    lines = []
    for method in measured:
        shares = [_interval(mean_interval(method.values(column))) for column in columns]
        numbers = [method.model(name) for name in ("first_token_kl", "perplexity", "fluency")]
        side = [_number(value, digits) for value, digits in zip(numbers, (3, 2, 2))]
        seconds = _number(method.seconds_per_edit(), 1)
        lines.append(
            [
                method.label,
                str(len(method.by_seed)),
                *shares,
                _interval(mean_interval(method.facts())),
                *side,
                seconds,
            ]
        )
    return markdown(heading, lines)


def difference_table(rows: Sequence[CellRows], data: str, edits: int, baseline: str) -> str:
    """Differences to a baseline, record by record, with 95% intervals; "" where it was not measured."""
    compared = methods(rows, data, edits)
    base = next((method for method in compared if method.cell.label == baseline), None)
    if base is None:
        return ""
    lines = []
    for method in compared:
        seeds = sorted(set(method.by_seed) & set(base.by_seed))
        if method is not base and seeds:
            pairs = [(method.values(name, seeds), base.values(name, seeds)) for name in COMPARED]
            lines.append([method.label, *(_signed(paired_difference(*pair)) for pair in pairs)])
    return markdown(["method", *(SHARES[name] for name in COMPARED)], lines) if lines else ""


def ability_table(rows: Sequence[CellRows], data: str, edits: int) -> str:
    """Tasks of general ability: the share that is right, and the difference to the untouched model, document
    by document; "" where none was measured."""
    lines = []
    for method in methods(rows, data, edits):
        for seed, row in sorted(method.by_seed.items()):
            before = (row.model.get("0") or {}).get("ability") or {}
            for task, now in (row.model[str(edits)].get("ability") or {}).items():
                change = None
                if task in before and now.get("outcomes") and before[task].get("outcomes"):
                    change = paired_difference(now["outcomes"], before[task]["outcomes"])
                numbers = [_number(entry and entry["value"], 3) for entry in (before.get(task), now)]
                lines.append([method.label, str(seed), task, now["metric"], *numbers, _signed(change)])
    heading = ["method", "seed", "task", "metric", "untouched", "now", "difference"]
    return markdown(heading, lines) if lines else ""


def untouched_line(rows: Sequence[CellRows], data: str) -> str:
    """The side effects' values of the untouched model."""
    models = [row.model["0"] for row in rows if row.cell.data == data and "0" in row.model]
    perplexity, fluency = (mean(model.get(name) for model in models) for name in ("perplexity", "fluency"))
    return f"Untouched model: perplexity {_number(perplexity, 2)}, fluency {_number(fluency, 2)}.\n"


def page(rows: Sequence[CellRows], baseline: str) -> str:
    """All tables: for every data set the largest number of edits first."""
    parts = [TITLE]
    for data in sorted({row.cell.data for row in rows}):
        parts.append(f"## {data}\n\n{untouched_line(rows, data)}")
        for edits in reversed(checkpoints(rows, data)):
            parts.append(f"### After {edits:,} edits\n\n{summary_table(rows, data, edits)}")
            differences = difference_table(rows, data, edits, baseline)
            if differences:
                parts.append(f"Differences to {baseline}, record by record:\n\n{differences}")
            ability = ability_table(rows, data, edits)
            if ability:
                parts.append(f"General ability (lm-eval), document by document:\n\n{ability}")
    return "\n".join(parts)


def markdown(heading: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [heading, ["---"] * len(heading), *lines]
    return "".join(f"{markdown_line(row)}\n" for row in rows)


def _interval(interval: Interval) -> str:
    if interval is None:
        return "–"
    middle, low, high = (_number(value, 3) for value in interval)
    return f"{middle} [{low}, {high}]"


def _signed(interval: Interval) -> str:
    if interval is None:
        return "–"
    middle, low, high = (f"{value:+.3f}".replace("0.", ".", 1) for value in interval)
    return f"{middle} [{low}, {high}]"


def _number(value: Any, digits: int) -> str:
    if value is None:
        return "–"
    text = f"{value:.{digits}f}"
    return text[1:] if digits == 3 and text.startswith("0.") else text
