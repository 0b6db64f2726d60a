"""An entry: one table or figure of a paper, what it measures, and the numbers that are printed in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources as package_resources
from typing import Any

import yaml

from ..errors import NeuronEditError
from ..utils.suggest import did_you_mean

PAPERS = ("nmke", "pnke", "fine", "kne")
Row = list[float | None]
Rows = list[Row | None]


@dataclass(frozen=True)
class Group:
    """The part of a table that is of one data set and one model.

    ``published``: label of a method -> one row of numbers per number of edits, or one row; ``half_widths``
    of their 95% intervals, where the paper gives them.
    """

    data: str
    model: str
    published: Mapping[str, Rows] = field(default_factory=dict)
    half_widths: Mapping[str, Rows] = field(default_factory=dict)

    def shown(self, label: str, number: int, columns: int) -> list[str]:
        """The numbers of a method in its row of that number, as ``99.9 (0.2)`` where the interval is
        given."""
        rows, widths = self.published[label], self.half_widths.get(label)
        row = rows[number] or [None] * columns
        half = (widths[number] if widths else None) or [None] * columns
        return [
            "-" if value is None else f"{value:g}" if width is None else f"{value:g} ({width:g})"
            for value, width in zip(row, half)
        ]


@dataclass(frozen=True)
class Entry:
    """One table or figure.

    Attributes:
        name: such as ``nmke-table-1``.
        title: what it shows, in our words.
        protocol: ``sequential``, ``single``, ``study``, or ``none`` where it cannot be made here.
        groups: by data set and model.
        columns: names of measures (``measures.MEASURES``).
        beside: further measures, which the paper defines and does not print.
        methods: label in the table -> how the runner says it, None for a baseline without code.
        steps: of ``sequential``: numbers of edits after which all of them are measured.
        records: of ``single``: how many, None if the paper does not say.
        batch_size: edits that are made together.
        scale: what our shares are multiplied with to compare (100 for percentages).
        study, arguments: of ``study``: a module of ``easyedit_neuron.studies`` and its arguments.
        needs: what it takes beyond this package and a model.
        notes: ours.
    """

    name: str
    title: str
    protocol: str
    groups: Sequence[Group]
    columns: Sequence[str] = ()
    beside: Sequence[str] = ()
    methods: Mapping[str, str | None] = field(default_factory=dict)
    steps: Sequence[int] = ()
    records: int | None = None
    batch_size: int = 1
    scale: float = 1
    study: str | None = None
    arguments: Sequence[str] = ()
    needs: Sequence[str] = ()
    notes: str = ""

    @property
    def paper(self) -> str:
        return self.name.partition("-")[0]

    @property
    def measured(self) -> list[str]:
        """Names of all measures of the table."""
        return [*self.columns, *self.beside]

    @property
    def data(self) -> list[str]:
        """Names of the data sets, each once."""
        return list(dict.fromkeys(group.data for group in self.groups))

    @property
    def models(self) -> list[str]:
        """Names of the models, each once."""
        return list(dict.fromkeys(group.model for group in self.groups))

    @property
    def size(self) -> int | None:
        """Number of edits of a run at the paper's size, None if it does not say."""
        return self.steps[-1] if self.steps else self.records

    def group(self, data: str, model: str) -> Group | None:
        """The published part of a data set and a model, None where the table has no such part."""
        return next((g for g in self.groups if (g.data, g.model) == (data, model)), None)


def entries(paper: str | None = None) -> dict[str, Entry]:
    """Name -> entry, of one paper or of all, in the order of the papers."""
    collected: dict[str, Entry] = {}
    for name in PAPERS if paper is None else (paper,):
        file = package_resources.files(__package__) / "tables" / f"{name}.yaml"
        for key, values in yaml.safe_load(file.read_text(encoding="utf-8")).items():
            collected[key] = _entry(key, values)
    return collected


def entry(name: str) -> Entry:
    """The entry of that name; ``NeuronEditError`` with a suggestion for another name."""
    names = entries()
    if name not in names:
        raise NeuronEditError(
            f"no table or figure {name!r}: {did_you_mean(name, names)} 'easyedit-neuron paper list' has all"
        )
    return names[name]


def _entry(name: str, values: dict[str, Any]) -> Entry:
    groups = [Group(**group) for group in values.pop("groups", [])]
    return Entry(name=name, groups=groups, **values)
