"""Plots of the report's panels: lines of runs, bars of runs, and the key of a run for the page's legend."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .figures import COLORS, INK, MUTED, Plot, bar_style, label_text, line_style
from .panels import EDITS, LAYER, Bars, Panel, Series
from .runs import Run

WIDTH, HEIGHT = 3.9, 2.6  # inches
STEPS = [1, 2, 2.5, 5, 10]  # between the labels of an axis
DECADES = 30  # counts and values that span more than this factor get a logarithmic axis


def run_styles(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Line style of every run; where there are several methods, the runs of one method share its colour."""
    methods = list(dict.fromkeys(run.method for run in runs))
    styles = []
    for number, run in enumerate(runs):
        if len(methods) > 1:
            earlier = [other.method for other in runs[:number]].count(run.method)
            styles.append(line_style(methods.index(run.method), number, earlier))
        else:
            styles.append(line_style(number, number, number // len(COLORS)))
    return styles


def plot_of(panel: Panel | Bars, styles: Sequence[dict[str, Any]]) -> Plot:
    """The plot of a panel; ``styles`` of all runs of the report."""
    if isinstance(panel, Panel):
        return RunLines(panel.title, panel, styles)
    legend_rows = -(-len(panel.parts) // 2)
    height = max(HEIGHT - 0.6, 0.75 + 0.32 * len(panel.labels)) + 0.17 * legend_rows
    return RunBars(panel.title, panel, size=(WIDTH, height))


@dataclass(frozen=True)
class RunKey(Plot):
    style: dict[str, Any]
    size: tuple[float, float] = field(default=(0.5, 0.2), kw_only=True)

    def draw(self, axes) -> None:
        axes.set_axis_off()
        axes.set(xlim=(0, 1), ylim=(-1, 1))
        axes.plot([0, 1], [0, 0], clip_on=False, **self.style | {"marker": ""})
        axes.plot([0.5], [0], clip_on=False, **self.style, markersize=7)


@dataclass(frozen=True)
class RunBars(Plot):
    """A bar of parts for every run."""

    bars: Bars

    def draw(self, axes) -> None:
        from matplotlib import ticker

        rows = list(range(len(self.bars.labels)))
        left = [0.0] * len(rows)
        for number, (name, values) in enumerate(self.bars.parts.items()):
            axes.barh(rows, values, left=left, height=0.62, label=label_text(name, 30), **bar_style(number))
            left = [start + value for start, value in zip(left, values)]
        axes.set_yticks(rows, [label_text(label, 22) for label in self.bars.labels])
        axes.set(ylim=(len(rows) - 0.4, -0.6), xlim=(0, 1.04 * max(left)), xlabel="seconds")
        axes.grid(False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.xaxis.set_major_locator(ticker.MaxNLocator(nbins=5, steps=STEPS))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,g}" if value < 1e6 else f"{value:.0e}")


@dataclass(frozen=True)
class RunLines(Plot):
    """A line for every run."""

    panel: Panel
    styles: Sequence[dict[str, Any]]
    size: tuple[float, float] = field(default=(WIDTH, HEIGHT), kw_only=True)

    def draw(self, axes) -> None:
        panel, last = self.panel, max(len(self.panel.series) - 1, 1)
        for order, series in enumerate(panel.series):
            # Earlier lines are thicker and their markers larger, so that lines that coincide are all seen.
            wider = 1 - order / last
            width = {"linewidth": 1.6 + 0.6 * wider, "markersize": 5.4 + 1.6 * wider}
            style = self.styles[series.run] | width
            if len(series.x) > 15:
                # The line shows the points; a few markers, at other places in every line, tell runs apart.
                style["markevery"] = (order % 5, 6)
            points = _with_gaps(series) if panel.x_label == LAYER else (series.x, series.y)
            axes.plot(*points, **style, clip_on=panel.axis != "share", zorder=3)
        axes.set_xlabel(panel.x_label)
        _set_x_axis(axes, panel.x_label, sorted({value for series in panel.series for value in series.x}))
        values = [value for series in panel.series for value in series.y]
        _set_y_axis(axes, panel.axis, values + [panel.reference] * (panel.reference is not None))
        if panel.reference is not None:
            axes.axhline(panel.reference, color=INK, linewidth=1.1, linestyle=(0, (1, 2)), zorder=2)


def _with_gaps(series: Series) -> tuple[list[float], list[float]]:
    """The points with a break where layers do not follow each other: the layers between were not measured."""
    x, y = [], []
    for layer, value in zip(series.x, series.y):
        if x and layer > x[-1] + 1:
            x.append(x[-1] + 1)
            y.append(math.nan)
        x.append(layer)
        y.append(value)
    return x, y


def _set_x_axis(axes, label: str, x: list[float]) -> None:
    from matplotlib import ticker

    if label == LAYER:
        axes.set_xlim(x[0] - 0.5, x[-1] + 0.5)
        axes.xaxis.set_major_locator(ticker.MaxNLocator(nbins=8, steps=STEPS, integer=True, min_n_ticks=1))
        return
    if label == EDITS and len(x) > 1 and x[-1] / x[0] >= DECADES:
        axes.set_xscale("log")
        axes.set_xticks(_labelled_counts(x), minor=False)
        axes.xaxis.set_minor_locator(ticker.FixedLocator(x))
        axes.xaxis.set_minor_formatter(ticker.NullFormatter())
    else:
        axes.xaxis.set_major_locator(ticker.MaxNLocator(nbins=5, steps=STEPS, integer=True, min_n_ticks=1))
    axes.xaxis.set_major_formatter("{x:,.0f}")


def _labelled_counts(x: list[float]) -> list[float]:
    """Counts to label on a logarithmic axis: from the largest down, as far apart as labels are wide."""
    distance = 0.14 * math.log(x[-1] / x[0])
    labelled = [x[-1]]
    for value in x[-2::-1]:
        if math.log(labelled[-1] / value) >= distance:
            labelled.append(value)
    return labelled[::-1]


def _set_y_axis(axes, kind: str, y: list[float]) -> None:
    from matplotlib import ticker

    low, high = min(y), max(y)
    if kind == "share" and low >= 0 and high <= 1:
        axes.set_ylim(0, 1)
        axes.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1.0])
        return
    if kind == "auto" and low > 0 and high / low >= DECADES:
        axes.set_yscale("log")
        axes.set_ylim(low / 1.5, high * 1.5)
        axes.yaxis.set_major_locator(ticker.LogLocator(numticks=7))
        axes.yaxis.set_minor_formatter(ticker.NullFormatter())
        axes.yaxis.set_major_formatter(
            lambda value, _: f"{value:.0e}" if value < 1e-3 or value >= 1e5 else f"{value:,g}"
        )
        return
    if kind == "zero" or (kind == "auto" and 0 <= low < 0.5 * high):
        low, high = min(low, 0), max(high, 0)
    margin = (high - low) * 0.08 or abs(high) * 0.05 or 0.5
    axes.set_ylim(low - margin if low else 0, high + margin if high or not low else 0)
    axes.yaxis.set_major_locator(ticker.MaxNLocator(nbins=6, steps=STEPS))
    axes.yaxis.set_major_formatter(ticker.ScalarFormatter(useOffset=False))
    axes.yaxis.get_major_formatter().set_powerlimits((-4, 6))
    if low < 0 < high:
        axes.axhline(0, color=MUTED, linewidth=0.8, zorder=1)
