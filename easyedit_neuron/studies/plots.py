"""The plots of the studies: stacked bars, lines, marks with error bars, histograms, points in a plane."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..report.figures import COLORS, DASHES, MARKERS, MUTED, Plot, bar_style, line_style

BINS = 40  # of a histogram
Points = tuple[Sequence[float], Sequence[float | None]]


@dataclass(frozen=True)
class Stacked(Plot):
    """A bar per label; its parts lie on top of each other."""

    labels: Sequence[Any]
    parts: Mapping[str, Sequence[float]]
    x_label: str
    y_label: str

    def draw(self, axes) -> None:
        bottom = [0.0] * len(self.labels)
        for number, (name, values) in enumerate(self.parts.items()):
            axes.bar(range(len(self.labels)), values, 0.74, bottom=bottom, label=name, **bar_style(number))
            bottom = [low + value for low, value in zip(bottom, values)]
        _name_categories(axes, self.labels)
        axes.set(xlabel=self.x_label, ylabel=self.y_label)


@dataclass(frozen=True)
class Lines(Plot):
    """A line with markers per name; ``log``: logarithmic axes, ``"x"`` or ``"xy"``; else x are integers
    unless ``fractions``. ``limits`` of y. Without ``legend`` the picture has a common one, of
    ``styles(names)``."""

    series: Mapping[str, Points]
    x_label: str
    y_label: str
    log: str = ""
    limits: tuple[float, float] | None = None
    fractions: bool = False
    legend: bool = True

    def draw(self, axes) -> None:
        from matplotlib.ticker import MaxNLocator

        for number, (name, (x, y)) in enumerate(self.series.items()):
            label = name if self.legend else None
            axes.plot(x, _with_nan(y), label=label, **line_style(number, number, number))
        for axis in self.log:
            _make_logarithmic(axes, axis)
        if self.limits:
            axes.set_ylim(*self.limits)
        if "x" not in self.log and not self.fractions:
            axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
        axes.set(xlabel=self.x_label, ylabel=self.y_label)


def styles(names: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
    """Name and style of the lines of a ``Lines`` with these series, for a common legend."""
    return [(name, line_style(number, number, number)) for number, name in enumerate(names)]


@dataclass(frozen=True)
class Marks(Plot):
    """A marker per label along x and per name, with error bars of half-length ``errors``; ``limits`` of y.

    ``joined`` by lines; otherwise the markers of a label stand beside each other.
    """

    labels: Sequence[Any]
    series: Mapping[str, Sequence[float | None]]
    x_label: str
    y_label: str
    errors: Mapping[str, Sequence[float | None]] = field(default_factory=dict)
    limits: tuple[float, float] | None = None
    joined: bool = False

    def draw(self, axes) -> None:
        count, step = len(self.labels), 0.0 if self.joined else 0.13 * min(1.0, len(self.labels) / 4)
        for number, (name, values) in enumerate(self.series.items()):
            shift = step * (number - (len(self.series) - 1) / 2)
            style = line_style(number, number, number) | ({} if self.joined else {"linestyle": ""})
            error = _with_nan(self.errors[name]) if name in self.errors else None
            x = [place + shift for place in range(count)]
            axes.errorbar(x, _with_nan(values), label=name, capsize=3, yerr=error, elinewidth=1.1, **style)
        _name_categories(axes, self.labels)
        axes.set_xlim(-0.5, count - 0.5)
        if self.limits:
            axes.set_ylim(*self.limits)
        low, high = axes.get_ylim()
        if low < 0 < high:
            axes.axhline(0, color=MUTED, linewidth=0.8, zorder=1)
        axes.set(xlabel=self.x_label, ylabel=self.y_label)


@dataclass(frozen=True)
class Histogram(Plot):
    """Outlines of histograms over common bins; ``log``: bins of equal ratio, for values that span decades."""

    series: Mapping[str, Sequence[float]]
    x_label: str
    y_label: str
    log: bool = False

    def draw(self, axes) -> None:
        values = [value for values in self.series.values() for value in values] or [0.0]
        low, high = min(values), max(values)
        if self.log:
            edges = [low * (high / low) ** (step / BINS) for step in range(BINS + 1)]
            _make_logarithmic(axes, "x")
        else:
            edges = [low + (high - low) * step / BINS for step in range(BINS + 1)]
        if edges[0] == edges[-1]:
            edges = [low - 0.5, low + 0.5]
        for number, (name, values) in enumerate(self.series.items()):
            style = {"color": COLORS[number % len(COLORS)], "linestyle": DASHES[number % len(DASHES)]}
            axes.hist(values, edges, histtype="step", linewidth=1.8, label=name, **style)
        axes.set(xlabel=self.x_label, ylabel=self.y_label)


@dataclass(frozen=True)
class Scatter(Plot):
    """Points in a plane without units, over other points in grey; ``names`` of both, for the legend.

    ``number`` sets colour and marker; ``limits``: left, right, bottom, top.
    """

    background: Sequence[Sequence[float]]
    points: Sequence[Sequence[float]]
    names: tuple[str, str]
    number: int
    limits: tuple[float, float, float, float]

    def draw(self, axes) -> None:
        if len(self.background):
            grey = {"s": 7, "color": MUTED, "alpha": 0.35, "linewidth": 0}
            axes.scatter(*zip(*self.background), label=self.names[0], **grey)
        look = {"color": COLORS[self.number % len(COLORS)], "marker": MARKERS[self.number % len(MARKERS)]}
        axes.scatter(*zip(*self.points), s=9, linewidth=0, label=self.names[1], **look)
        axes.set(xlim=self.limits[:2], ylim=self.limits[2:], xticks=[], yticks=[])


def _name_categories(axes, labels: Sequence[Any]) -> None:
    step = max(1, math.ceil(len(labels) / 18))  # of many layers every second or third is named
    texts = [str(label) for label in labels][::step]
    crowded = max(map(len, texts), default=0) * len(texts) > 46
    places = range(0, len(labels), step)
    axes.set_xticks(places, texts, rotation=25 if crowded else 0, ha="right" if crowded else "center")
    axes.grid(False, axis="x")


def _make_logarithmic(axes, name: str) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set(**{f"{name}scale": "log"})
    axis = getattr(axes, f"{name}axis")
    low, high = axis.get_view_interval()
    if name == "y" and high < 100 * low:  # few powers of ten: name 2 and 5 between them, too
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_formatter(NullFormatter())


def _with_nan(values: Sequence[float | None]) -> list[float]:
    return [math.nan if value is None else value for value in values]
