"""Figures of reports and studies in one style: SVG that follows the page's theme, or PNG (matplotlib).

Colours are Okabe and Ito's, which people with any common colour vision can tell apart. Every line also has a
marker and every bar a hatch, so that a grey print can be read.
"""

import html
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import NeuronEditError
from .runs import shortened

INK, MUTED, GRID, SURFACE = "#1b1e24", "#5a6070", "#d9dce3", "#fffffe"
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#6b6b6b")
VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--grid", SURFACE: "--surface"} | {
    color: f"--run{number}" for number, color in enumerate(COLORS)
}
"""Colour -> the variable of ``page.css`` that replaces it in an SVG."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p")
DASHES = ("-", (0, (5, 1.6)), (0, (1.2, 1.4)), (0, (6, 1.5, 1.2, 1.5)))
HATCHES = ("", "//", "\\\\", "xx", "--")
INSTALL = "plots need matplotlib: pip install 'easyedit-neuron[report]'"

_STYLE: dict[str, Any] = {"svg.fonttype": "none", "font.family": "DejaVu Sans", "font.size": 9.5}
_STYLE |= {"text.parse_math": False, "axes.grid": True, "axes.axisbelow": True, "legend.frameon": False}
_STYLE |= dict.fromkeys(("text.color", "axes.titlecolor"), INK)
_STYLE |= dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), MUTED)
_STYLE |= dict.fromkeys(("axes.spines.top", "axes.spines.right"), False)
_STYLE |= dict.fromkeys(("figure.facecolor", "axes.facecolor"), "none")
_STYLE |= {"grid.color": GRID, "grid.linewidth": 0.7, "axes.linewidth": 0.8, "hatch.linewidth": 0.7}
_STYLE |= {"lines.linewidth": 1.7, "lines.markersize": 5.2}
_STYLE |= {"axes.titlesize": 10.5, "axes.titlelocation": "left", "axes.titlepad": 9}


@dataclass(frozen=True)
class Plot:
    """One pair of axes: its title, and its size in inches (a page shows an inch as about 100 pixels)."""

    title: str
    size: tuple[float, float] = field(default=(4.2, 2.9), kw_only=True)

    def draw(self, axes) -> None:
        """Draw on matplotlib's axes; labelled artists get a legend below."""
        raise NotImplementedError


def available() -> bool:
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        return False
    return True


def require() -> None:
    """Raise ``NeuronEditError`` where matplotlib is not installed."""
    if not available():
        raise NeuronEditError(INSTALL)


def line_style(color: int, marker: int, dash: int) -> dict[str, Any]:
    """Keywords of a line by the numbers of its colour, marker and dash."""
    style = {"color": COLORS[color % len(COLORS)], "marker": MARKERS[marker % len(MARKERS)]}
    edge = {"markeredgecolor": SURFACE, "markeredgewidth": 0.6}
    return style | {"linestyle": DASHES[dash % len(DASHES)]} | edge


def bar_style(number: int) -> dict[str, Any]:
    """Keywords of the parts of bars: no two of the first 35 look alike."""
    color, hatch = COLORS[number % len(COLORS)], HATCHES[number % len(HATCHES)]
    return {"color": color, "hatch": hatch, "edgecolor": SURFACE, "linewidth": 0.5}


def label_text(text: str, length: int) -> str:
    """A label of at most ``length`` characters; matplotlib leaves those with a leading _ out of legends."""
    return shortened(f" {text}" if text.startswith("_") else text, length)


def svg(plot: Plot, salt: str) -> str:
    """The plot as an ``<svg>`` element without its title, the same text for the same plot.

    A plot without a title is decoration, which a screen reader skips. ``salt`` differs between the plots of a
    page, so that no two elements get the same id.
    """
    with _styled(salt) as Figure:
        figure = Figure(figsize=plot.size, layout="constrained")
        axes = figure.add_subplot()
        plot.draw(axes)
        _add_legend(figure, axes, plot.size[0])
        buffer = io.StringIO()
        no_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=no_metadata)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]  # without the XML prolog
    # The style sheet is part of page.css. Comments repeat every text, and a text may contain "--".
    text = re.sub(r"\s*<metadata>.*?</metadata>|<!--.*?-->|\s*<style.*?</style>", "", text, flags=re.S)
    # Every plot has groups named axes_1 and so on; nothing refers to them. Clip paths have salted ids.
    text = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", text)
    for color, variable in VARIABLES.items():
        text = text.replace(color, f"var({variable}, {color})")
    role = f'role="img" aria-label="{html.escape(plot.title)}"' if plot.title else 'aria-hidden="true"'
    return text.replace("<svg", f"<svg {role}", 1)


def write_png(
    plots: Sequence[Plot], path: Path, legend: Sequence[tuple[str, dict]] = (), dpi: int = 150
) -> None:
    """Write plots as one picture, three in a row (four: two), each with title above and legend below.

    ``legend``: label and line style of the entries of a common legend.
    """
    require()
    columns = 2 if len(plots) == 4 else min(3, len(plots))
    rows = [plots[start : start + columns] for start in range(0, len(plots), columns)]
    width = max(sum(plot.size[0] for plot in row) for row in rows)
    heights = [max(plot.size[1] for plot in row) + 0.55 for row in rows]
    with _styled("png") as Figure:
        legend_rows = -(-len(legend) // _legend_columns(legend, width)) if legend else 0
        size = (width, sum(heights) + 0.1 * bool(legend) + 0.25 * legend_rows)
        figure = Figure(figsize=size, layout="constrained", facecolor="white")
        figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)
        grid = {"squeeze": False, "facecolor": "none"}
        lines = figure.subfigures(len(rows), 1, height_ratios=heights, **grid).flat
        for line, row in zip(lines, rows):
            widths = [plot.size[0] for plot in row]
            rest = width - sum(widths)
            widths += [rest] if rest > 0.5 else []
            places = line.subfigures(1, len(widths), width_ratios=widths, **grid).flat
            for place, plot in zip(places, row):
                axes = place.add_subplot()
                axes.set_title(shortened(plot.title, int(12.3 * plot.size[0])))
                plot.draw(axes)
                _add_legend(place, axes, plot.size[0])
        if legend:
            _add_common_legend(figure, legend, width)
        figure.savefig(path, dpi=dpi, metadata={"Software": None})


@contextmanager
def _styled(salt: str) -> Iterator[type]:
    """matplotlib's ``Figure`` under the style of the reports."""
    import matplotlib
    from matplotlib.figure import Figure  # not pyplot, which looks for a window system and keeps all figures

    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": salt}):
        yield Figure


def _add_legend(figure, axes, width: float) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        widths = [0.5 + 0.068 * len(label) for label in labels]
        columns = len(labels) if sum(widths) <= width else max(1, int(width / max(widths)))
        look = {"fontsize": 8, "handlelength": 2.2, "columnspacing": 1.0}
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, **look)


def _add_common_legend(figure, legend: Sequence[tuple[str, dict]], width: float) -> None:
    from matplotlib.lines import Line2D

    labels = [label_text(label, 44) for label, _ in legend]
    handles = [Line2D([], [], **style) for _, style in legend]
    columns = _legend_columns(legend, width)
    figure.legend(handles, labels, loc="outside lower center", handlelength=3.2, ncols=columns)


def _legend_columns(legend: Sequence[tuple[str, dict]], width: float) -> int:
    longest = max(len(label_text(label, 44)) for label, _ in legend)
    return max(1, min(len(legend), int(width / (0.7 + 0.088 * longest))))
