"""What a study leaves: a CSV file and a plot."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, Sequence

from ..errors import NeuronEditError
from .measure import MEASURES


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """One line per setting; columns in the order in which they first occur."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        for row in rows:
            writer.writerow({name: f"{value:.4g}" if isinstance(value, float) else value for name, value in row.items()})


def new_figure(width: float, height: float, dpi: int):
    """An empty figure, inches and dots per inch, that needs no display; ``NeuronEditError`` where matplotlib is not installed."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise NeuronEditError("the plot needs matplotlib: pip install easyedit-neuron[report]") from None
    figure = Figure(figsize=(width, height), dpi=dpi, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def plot(path: Path, rows: Sequence[dict[str, Any]], varied: str, title: str) -> None:
    """PNG: every measure over the varied setting; settings that are no numbers stand side by side.

    Raises:
        NeuronEditError: matplotlib is not installed.
    """
    figure = new_figure(5.6, 3.4, 100)
    labels = [str(row[varied]) for row in rows]
    numbers = all(isinstance(row[varied], (int, float)) for row in rows)
    axes = figure.add_subplot()
    names = [name for name in MEASURES if any(row.get(name) is not None for row in rows)]
    for number, name in enumerate(names):
        values = [float("nan") if row.get(name) is None else row[name] for row in rows]
        label = name.replace("_", " ")
        if numbers:
            axes.plot(range(len(rows)), values, marker="o", label=label)
        else:
            width = 0.8 / len(names)
            axes.bar([x + width * (number + 0.5) - 0.4 for x in range(len(rows))], values, width, label=label)
    axes.set_xticks(range(len(rows)), labels, rotation=0 if numbers else 20)
    axes.set(ylim=(0, 1.05), xlabel=varied.replace("_", " "), ylabel="mean over edits", title=title)
    figure.legend(fontsize="small", ncols=len(names), loc="outside lower center")
    figure.savefig(path)
