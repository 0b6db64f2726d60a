"""Drawing with matplotlib: a panel as SVG whose colours follow the page's theme, a section as PNG.

Colours are Okabe and Ito's, which people with any common colour vision tell apart; every run also has a
marker of its own, so that a grey print can be read. In the SVG a colour is a CSS variable with the light
theme's value as fallback.
"""

from __future__ import annotations

import html
import io
import itertools
import math
import re
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path

from ..errors import NeuronEditError
from .panels import EDITS, LAYER, Bars, Panel, Section, Series
from .runs import Run, shortened

INK, MUTED, GRID, SURFACE = "#1b1e24", "#5a6070", "#d9dce3", "#fffffe"
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#6b6b6b")
VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--grid",
    SURFACE: "--surface",
    **{color: f"--run{number}" for number, color in enumerate(COLORS)},
}
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p")
DASHES = ("-", (0, (5, 1.6)), (0, (1.2, 1.4)), (0, (6, 1.5, 1.2, 1.5)))
HATCHES = ("", "////", "....", "\\\\\\\\", "xxxx")
SIZE = (3.9, 2.6)  # inches of a panel; the page shows an inch as about 100 pixels
LEGEND_COLUMNS = 2  # of the parts of bars
STEPS = [1, 2, 2.5, 5, 10]  # between the labels of an axis
DECADE = 30  # counts and values that span more than this factor get a logarithmic axis
INSTALL = "plots need matplotlib: pip install 'easyedit-neuron[report]'"

_STYLE = {
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "axes.linewidth": 0.8,
    "lines.linewidth": 1.7,
    "lines.markersize": 5.2,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.titlepad": 9,
    "legend.frameon": False,
    "hatch.linewidth": 0.7,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.unicode_minus": True,
}


def available() -> bool:
    """Whether matplotlib is there."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        return False
    return True


def styles(runs: Sequence[Run]) -> list[dict]:
    """Colour, marker and dash of every run: runs of one method share its colour where there are several
    methods."""
    methods = list(dict.fromkeys(run.method for run in runs))
    seen: dict[str, int] = {}
    found = []
    for number, run in enumerate(runs):
        which = seen[run.method] = seen.get(run.method, -1) + 1
        by_method = len(methods) > 1
        color = methods.index(run.method) if by_method else number
        dash = which if by_method else number // len(COLORS)
        found.append(
            {
                "color": COLORS[color % len(COLORS)],
                "marker": MARKERS[number % len(MARKERS)],
                "linestyle": DASHES[dash % len(DASHES)],
            }
        )
    return found


def panel_svg(panel: Panel | Bars, run_styles: Sequence[dict], salt: str) -> str:
    """The panel as an ``<svg>`` element without title and legend; ``salt`` keeps its ids apart from those of
    other panels."""
    with themed(salt) as new:
        figure = new(figsize=_size(panel), layout="constrained")
        _draw(figure.add_subplot(), panel, run_styles)
        return svg_of(figure, salt, panel.title)


def swatch_svg(style: dict, salt: str) -> str:
    """Line and marker of a run for the page's legend."""
    with themed(salt) as new:
        figure = new(figsize=(0.5, 0.2))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.axis("off")
        axes.set(xlim=(0, 1), ylim=(0, 1))
        axes.plot([0.04, 0.96], [0.5, 0.5], **{**style, "marker": ""})
        axes.plot([0.5], [0.5], **style, markeredgecolor=SURFACE, markeredgewidth=0.6, markersize=7)
        return svg_of(figure, salt, "")


def chip_svg(color: str, hatch: str, salt: str) -> str:
    """A patch of a bar's part for the legend below it."""
    with themed(salt) as new:
        figure = new(figsize=(0.25, 0.18))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.axis("off")
        axes.set(xlim=(0, 1), ylim=(0, 1))
        axes.barh([0.5], [1], height=1, color=color, hatch=hatch, edgecolor=SURFACE, linewidth=0)
        return svg_of(figure, salt, "")


def section_png(section: Section, runs: Sequence[Run], path: Path, dpi: int = 150) -> None:
    """All panels of a section in one picture, with the legend below; ``NeuronEditError`` without
    matplotlib."""
    if not available():
        raise NeuronEditError(INSTALL)
    from matplotlib.lines import Line2D

    run_styles = styles(runs)
    columns = min(3, len(section.panels)) if len(section.panels) != 4 else 2
    rows = -(-len(section.panels) // columns)
    height = max(_size(panel, legend=True)[1] for panel in section.panels)
    shown = sorted(
        {series.run for panel in section.panels if isinstance(panel, Panel) for series in panel.series}
    )
    with themed("png") as new:
        figure = new(
            figsize=(columns * (SIZE[0] + 0.25), rows * (height + 0.45) + 0.3),
            layout="constrained",
            facecolor="white",
        )
        figure.get_layout_engine().set(w_pad=0.09, h_pad=0.09)
        places = figure.subfigures(rows, columns, squeeze=False, facecolor="none").flat
        for place, panel in zip(places, section.panels):
            axes = place.add_subplot()
            axes.set_title(_short(panel.title, 48))
            _draw(axes, panel, run_styles)
            if isinstance(panel, Bars):
                place.legend(loc="outside lower left", ncols=LEGEND_COLUMNS, fontsize=8)
        if shown:
            lines = [
                Line2D([], [], **run_styles[run], markeredgecolor=SURFACE, markeredgewidth=0.6)
                for run in shown
            ]
            labels = [_short(runs[run].label, 44) for run in shown]
            widest = max(len(label) for label in labels)
            figure.legend(
                lines,
                labels,
                loc="outside lower center",
                handlelength=3.2,
                ncols=max(1, min(len(labels), int(columns * (SIZE[0] + 0.25) / (0.7 + 0.088 * widest)))),
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=dpi, metadata={"Software": None})


def part_colors(count: int) -> list[tuple[str, str]]:
    """Colour and hatch of the parts of a bar."""
    return [
        (COLORS[number % len(COLORS)], HATCHES[number // len(COLORS) % len(HATCHES)])
        for number in range(count)
    ]


@contextmanager
def themed(salt: str):
    """matplotlib's Figure under the style of the reports, for pictures whose ids get ``salt``."""
    import matplotlib
    from matplotlib.figure import Figure  # no pyplot: no window system, no figures that stay

    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": salt}):
        yield Figure


def _size(panel: Panel | Bars, legend: bool = False) -> tuple[float, float]:
    if isinstance(panel, Panel):
        return SIZE
    return SIZE[0], max(SIZE[1] - 0.6, 0.75 + 0.32 * len(panel.labels)) + legend * 0.17 * _legend_rows(panel)


def _legend_rows(panel: Bars) -> int:
    return -(-len(panel.parts) // LEGEND_COLUMNS)


def _draw(axes, panel: Panel | Bars, run_styles: Sequence[dict]) -> None:
    if isinstance(panel, Bars):
        _draw_bars(axes, panel)
    else:
        _draw_lines(axes, panel, run_styles)


def _draw_lines(axes, panel: Panel, run_styles: Sequence[dict]) -> None:
    for order, series in enumerate(panel.series):
        # Earlier lines are thicker, their markers larger: where several coincide, all are seen.
        wider = 1 - order / max(len(panel.series) - 1, 1)
        style = {**run_styles[series.run], "linewidth": 1.6 + 0.6 * wider, "markersize": 5.4 + 1.6 * wider}
        if len(series.x) > 15:
            # Many points: the line carries them, a few markers tell the runs apart, not at the same places
            # for all.
            style["markevery"] = (order % 5, 6)
        axes.plot(
            *(_gaps(series) if panel.x_label == LAYER else (series.x, series.y)),
            **style,
            markeredgecolor=SURFACE,
            markeredgewidth=0.6,
            clip_on=panel.axis != "share",
            zorder=3,
        )
    x = sorted({value for series in panel.series for value in series.x})
    y = [value for series in panel.series for value in series.y] + (
        [] if panel.reference is None else [panel.reference]
    )
    axes.set_xlabel(panel.x_label)
    _x_axis(axes, panel.x_label, x)
    _y_axis(axes, panel.axis, y)
    if panel.reference is not None:
        axes.axhline(panel.reference, color=INK, linewidth=1.1, linestyle=(0, (1, 2)), zorder=2)


def _gaps(series: Series) -> tuple[list[float], list[float]]:
    """The points with breaks between layers that do not follow each other: nothing is known of those
    between."""
    x, y = [], []
    for layer, value in zip(series.x, series.y):
        if x and layer > x[-1] + 1:
            x, y = [*x, x[-1] + 1], [*y, math.nan]
        x, y = [*x, layer], [*y, value]
    return x, y


def _x_axis(axes, label: str, x: list[float]) -> None:
    from matplotlib import ticker

    if label == LAYER:
        axes.set_xlim(x[0] - 0.5, x[-1] + 0.5)
        axes.xaxis.set_major_locator(ticker.MaxNLocator(nbins=8, steps=STEPS, integer=True, min_n_ticks=1))
        return
    if label == EDITS and len(x) > 1 and x[-1] / x[0] >= DECADE:
        axes.set_xscale("log")
        axes.set_xticks(_spread(x), minor=False)
        axes.xaxis.set_minor_locator(ticker.FixedLocator(x))
        axes.xaxis.set_minor_formatter(ticker.NullFormatter())
    else:
        axes.xaxis.set_major_locator(ticker.MaxNLocator(nbins=5, steps=STEPS, integer=True, min_n_ticks=1))
    axes.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))


def _spread(x: list[float]) -> list[float]:
    """The counts that get a label on a logarithmic axis: from the largest down, as far apart as their labels
    are wide."""
    least, kept = 0.14 * math.log(x[-1] / x[0]), [x[-1]]
    for value in x[-2::-1]:
        if math.log(kept[-1] / value) >= least:
            kept.append(value)
    return kept[::-1]


def _y_axis(axes, kind: str, y: list[float]) -> None:
    from matplotlib import ticker

    if kind == "share" and min(y) >= 0 and max(y) <= 1:
        axes.set_ylim(0, 1)
        axes.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1.0])
        return
    if kind == "auto" and min(y) > 0 and max(y) / min(y) >= DECADE:
        axes.set_yscale("log")
        axes.set_ylim(min(y) / 1.5, max(y) * 1.5)
        axes.yaxis.set_major_locator(ticker.LogLocator(numticks=7))
        axes.yaxis.set_minor_formatter(ticker.NullFormatter())
        axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: _power(value)))
        return
    low, high = min(y), max(y)
    if kind == "zero" or kind == "auto" and 0 <= low < 0.5 * high:
        low, high = min(low, 0), max(high, 0)
    room = (high - low) * 0.08 or abs(high) * 0.05 or 0.5
    axes.set_ylim(low - room if low else 0, high + room if high or not low else 0)
    axes.yaxis.set_major_locator(ticker.MaxNLocator(nbins=6, steps=STEPS))
    axes.yaxis.set_major_formatter(ticker.ScalarFormatter(useOffset=False))
    axes.yaxis.get_major_formatter().set_powerlimits((-4, 6))
    if low < 0 < high:
        axes.axhline(0, color=MUTED, linewidth=0.8, zorder=1)


def _power(value: float) -> str:
    return f"{value:.0e}" if value < 1e-3 or value >= 1e5 else f"{value:,g}"


def _draw_bars(axes, panel: Bars) -> None:
    from matplotlib import ticker

    left = [0.0] * len(panel.labels)
    rows = list(range(len(panel.labels)))
    for (name, values), (color, hatch) in zip(panel.parts.items(), part_colors(len(panel.parts))):
        axes.barh(
            rows,
            values,
            left=left,
            height=0.62,
            color=color,
            hatch=hatch,
            edgecolor=SURFACE,
            linewidth=0.5,
            label=_short(name, 30),
        )
        left = [start + value for start, value in zip(left, values)]
    axes.set_yticks(rows, [_short(label, 22) for label in panel.labels])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, 1.04 * max(left))
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("seconds")
    axes.xaxis.set_major_locator(ticker.MaxNLocator(nbins=5, steps=STEPS))
    axes.xaxis.set_major_formatter(
        ticker.FuncFormatter(lambda value, _: f"{value:,g}" if value < 1e6 else f"{value:.0e}")
    )


def svg_of(figure, salt: str, title: str) -> str:
    """The figure as an ``<svg>`` element; ``title`` is what a screen reader says, empty for a mere
    decoration."""
    buffer = io.StringIO()
    figure.savefig(
        buffer,
        format="svg",
        transparent=True,
        metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
    )
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r"<!--.*?-->\n?", "", text, flags=re.S)
    text = re.sub(r"\s*<style.*?</style>", "", text, flags=re.S)  # one for the whole page stands in page.css
    # Of the ids only those that are referred to stay, under names that no other picture of the page has.
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', text))
    text = re.sub(
        r' id="([^"]+)"', lambda found: f' id="{salt}-{found[1]}"' if found[1] in used else "", text
    )
    text = re.sub(r'(url\(#|href="#)', rf"\g<1>{salt}-", text)
    for color, name in VARIABLES.items():
        text = text.replace(color, f"var({name}, {color})")
    label = f'role="img" aria-label="{html.escape(title)}"' if title else 'aria-hidden="true"'
    head = re.match(r"<svg[^>]*>", text, flags=re.S)
    box = re.search(r'viewBox="[^"]+"', head[0])[0]
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f"<svg {label} {box} {spaces}>{text[head.end() :].strip()}"


def _short(text: str, length: int) -> str:
    text = f" {text}" if text.startswith("_") else text  # matplotlib leaves such names out of a legend
    return shortened(text, length)


def salts():
    """Names that differ, for the ids of one page's pictures."""
    return (f"p{number}" for number in itertools.count())
