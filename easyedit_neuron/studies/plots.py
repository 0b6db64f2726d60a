"""Ways of painting, in the report's colours and markers: each function returns what ``output.Plot`` paints
with."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..report.draw import COLORS, DASHES, HATCHES, MARKERS, MUTED, SURFACE

Paint = Callable[[Any], None]
Points = tuple[Sequence[float], Sequence[float | None]]


def stacked(labels: Sequence[Any], parts: Mapping[str, Sequence[float]], x_label: str, y_label: str) -> Paint:
    """A bar per label, made of parts that lie on top of each other."""

    def paint(axes) -> None:
        below = [0.0] * len(labels)
        for number, (name, values) in enumerate(parts.items()):
            axes.bar(
                range(len(labels)),
                values,
                0.74,
                bottom=below,
                label=name,
                edgecolor=SURFACE,
                linewidth=0.5,
                **_patch(number),
            )
            below = [low + value for low, value in zip(below, values)]
        _categories(axes, labels)
        axes.set(xlabel=x_label, ylabel=y_label)

    return paint


def curves(
    series: Mapping[str, Points], x_label: str, y_label: str, *, limits: tuple[float, float] | None = None
) -> Paint:
    """A line with markers per name; x are whole numbers, such as layers."""

    def paint(axes) -> None:
        from matplotlib.ticker import MaxNLocator

        for number, (name, (x, y)) in enumerate(series.items()):
            axes.plot(x, _numbers(y), label=name, **_line(number))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
        if limits:
            axes.set_ylim(*limits)
        axes.set(xlabel=x_label, ylabel=y_label)

    return paint


def paths(series: Mapping[str, Points], x_label: str, y_label: str, *, logarithmic: bool = False) -> Paint:
    """A line with markers per name over a logarithmic x; ``logarithmic``: y, too."""

    def paint(axes) -> None:
        for number, (name, (x, y)) in enumerate(series.items()):
            axes.plot(x, _numbers(y), label=name, **_line(number))
        _decades(axes)
        if logarithmic:
            _decades(axes, "y")
        axes.set(xlabel=x_label, ylabel=y_label)

    return paint


def marks(
    labels: Sequence[Any],
    series: Mapping[str, Sequence[float | None]],
    x_label: str,
    y_label: str,
    *,
    errors: Mapping[str, Sequence[float | None]] | None = None,
    limits: tuple[float, float] | None = None,
    joined: bool = False,
) -> Paint:
    """A marker per label and name, beside each other where they are not ``joined`` by lines; ``errors``: half
    a bar's length."""

    def paint(axes) -> None:
        for number, (name, values) in enumerate(series.items()):
            style = _line(number)
            shift = 0.0
            if not joined:
                style["linestyle"] = ""
                shift = 0.13 * min(1.0, len(labels) / 4) * (number - (len(series) - 1) / 2)
            spread = (errors or {}).get(name)
            axes.errorbar(
                [at + shift for at in range(len(labels))],
                _numbers(values),
                label=name,
                capsize=3,
                yerr=None if spread is None else _numbers(spread),
                elinewidth=1.1,
                **style,
            )
        _categories(axes, labels)
        axes.set_xlim(-0.5, len(labels) - 0.5)
        if limits:
            axes.set_ylim(*limits)
        low, high = axes.get_ylim()
        if low < 0 < high:
            axes.axhline(0, color=MUTED, linewidth=0.8, zorder=1)
        axes.set(xlabel=x_label, ylabel=y_label)

    return paint


def histogram(
    series: Mapping[str, Sequence[float]],
    x_label: str,
    y_label: str,
    *,
    bins: int = 40,
    logarithmic: bool = False,
) -> Paint:
    """Outlines of histograms over common bins; ``logarithmic``: bins of equal ratio, for values that span
    decades."""

    def paint(axes) -> None:
        every = [value for values in series.values() for value in values] or [0.0]
        low, high = min(every), max(every)
        if logarithmic:
            edges = [low * (high / low) ** (step / bins) for step in range(bins + 1)]
            _decades(axes)
        else:
            edges = [low + (high - low) * step / bins for step in range(bins + 1)]
        if edges[0] == edges[-1]:
            edges = [low - 0.5, low + 0.5]
        for number, (name, values) in enumerate(series.items()):
            axes.hist(
                values,
                edges,
                histtype="step",
                linewidth=1.8,
                label=name,
                color=COLORS[number % len(COLORS)],
                linestyle=DASHES[number % len(DASHES)],
            )
        axes.set(xlabel=x_label, ylabel=y_label)

    return paint


def scatter(
    behind: Sequence[Sequence[float]],
    points: Sequence[Sequence[float]],
    names: tuple[str, str],
    number: int,
    limits: tuple[float, float, float, float],
) -> Paint:
    """Points in a plane without units, over others in grey; ``limits``: left, right, bottom, top."""

    def paint(axes) -> None:
        if len(behind):
            axes.scatter(*zip(*behind), s=7, color=MUTED, alpha=0.35, linewidth=0, label=names[0])
        axes.scatter(
            *zip(*points),
            s=9,
            color=COLORS[number % len(COLORS)],
            marker=MARKERS[number % len(MARKERS)],
            linewidth=0,
            label=names[1],
        )
        axes.set(xlim=limits[:2], ylim=limits[2:], xticks=[], yticks=[])

    return paint


def _categories(axes, labels: Sequence[Any]) -> None:
    texts = [str(label) for label in labels]
    step = max(1, math.ceil(len(texts) / 18))  # many layers: every second or third is named
    crowded = max((len(text) for text in texts), default=0) * len(texts[::step]) > 46
    places = list(range(len(texts)))[::step]
    axes.set_xticks(places, texts[::step], rotation=25 if crowded else 0, ha="right" if crowded else "center")
    axes.grid(False, axis="x")


def _decades(axes, which: str = "x") -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set(**{f"{which}scale": "log"})
    axis = getattr(axes, f"{which}axis")
    low, high = axis.get_view_interval()
    if which == "y" and high < 100 * low:  # few whole decades, and room for the names of 2 and 5 between them
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _numbers(values: Sequence[float | None]) -> list[float]:
    return [math.nan if value is None else value for value in values]


def _patch(number: int) -> dict[str, Any]:
    return {"color": COLORS[number % len(COLORS)], "hatch": HATCHES[number % len(HATCHES)]}


def _line(number: int) -> dict[str, Any]:
    return {
        "color": COLORS[number % len(COLORS)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": DASHES[number % len(DASHES)],
        "markeredgecolor": SURFACE,
        "markeredgewidth": 0.6,
    }
