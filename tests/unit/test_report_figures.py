"""Figures: runs can be told apart, nothing is covered, labels do not overlap, axes suit the numbers."""

import re
import warnings
from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imread

from easyedit_neuron.report import figures, page
from easyedit_neuron.report.figures import COLORS, bar_style, line_style, svg, write_png
from easyedit_neuron.report.panel_plots import plot_of, run_styles
from easyedit_neuron.report.panels import EDITS, LAYER, Bars, Panel, Series, sections
from easyedit_neuron.report.runs import read_runs
from helpers.run_folders import run_folder

COUNTS = [10, 100, 500, 1000, 1500, 2000, 2500, 3000, 5000]


def panel(x, *ys, x_label=EDITS, **options):
    return Panel(
        "p", "A title", x_label, [Series(i, f"run {i}", x, list(y)) for i, y in enumerate(ys)], **options
    )


def plot(panel, runs=3):
    return plot_of(panel, [line_style(number, number, 0) for number in range(runs)])


def drawn(panel):
    with figures._styled("t") as Figure:
        figure = Figure(figsize=plot(panel).size, layout="constrained")
        axes = figure.add_subplot()
        plot(panel).draw(axes)
        FigureCanvasAgg(figure).draw()
    return figure, axes


def labels_of(axis, figure):
    return [label.get_window_extent() for label in axis.get_ticklabels() if label.get_text()]


@pytest.mark.parametrize(
    "x",
    [
        COUNTS,
        COUNTS[:3],
        [5, 10, 20, 40, 60],
        [100, 200, 300],
        [7],
        list(range(50, 5001, 50)),
        [1, 10, 100, 1000, 10000, 100000],
    ],
)
@pytest.mark.parametrize("x_label", [EDITS, "position of the edit in the stream"])
def test_labels_of_the_axes_do_not_overlap_and_are_inside(x, x_label):
    figure, axes = drawn(panel(x, [0.5] * len(x), [0.9] * len(x), axis="share", x_label=x_label))
    boxes = labels_of(axes.xaxis, figure)
    shown = [
        box for box, tick in zip(boxes, axes.get_xticks()) if axes.get_xlim()[0] <= tick <= axes.get_xlim()[1]
    ]
    assert shown and all(left.x1 < right.x0 for left, right in zip(shown, shown[1:]))
    assert shown[0].x0 >= 0 and shown[-1].x1 <= figure.bbox.x1 + 1


def test_counts_over_decades_are_logarithmic_and_marked_where_measured():
    _, axes = drawn(panel(COUNTS, [0.5] * 9, axis="share"))
    assert (
        axes.get_xscale() == "log"
        and set(axes.get_xticks()) <= set(COUNTS)
        and {10, 5000} <= set(axes.get_xticks())
    )
    assert axes.get_ylim() == (0, 1)
    _, axes = drawn(panel([100, 200, 300], [0.5] * 3, axis="share"))
    assert axes.get_xscale() == "linear"
    _, axes = drawn(panel([3, 4], [0.5] * 2, x_label=LAYER))
    assert axes.get_xscale() == "linear" and set(axes.get_xticks()) >= {3, 4}


def test_lines_do_not_cross_layers_that_are_not_there():
    _, axes = drawn(panel([0, 3, 4], [1.0, 2.0, 3.0], x_label=LAYER))
    x, y = axes.lines[0].get_data()
    assert list(x) == [0, 1, 3, 4] and [float(value) for value in y[[0, 2, 3]]] == [1, 2, 3] and y[1] != y[1]


@pytest.mark.parametrize(
    "y, scale",
    [
        ([4.0, 900.0], "log"),
        ([4.0, 8.0], "linear"),
        ([0.0, 900.0], "linear"),
        ([-0.1, 0.2], "linear"),
        ([3.0, 3.0], "linear"),
        ([0.0, 0.0], "linear"),
        ([1e-9, 1e-3], "log"),
    ],
)
def test_values_are_within_their_axis(y, scale):
    _, axes = drawn(panel([1, 2], y, reference=y[0]))
    low, high = axes.get_ylim()
    assert axes.get_yscale() == scale and low < high and low <= min(y) and max(y) <= high


def test_every_run_has_a_look_of_its_own(tmp_path):
    for number in range(9):
        run_folder(tmp_path / str(number), ("MEMIT", "NMKE", "PNKE")[number % 3], 3, seed=number)
    runs = read_runs([tmp_path])
    styles = run_styles(runs)
    assert len({(style["color"], style["linestyle"], style["marker"]) for style in styles}) == 9
    assert len({(style["color"], style["linestyle"]) for style in styles}) == 9
    assert styles[0]["color"] == styles[3]["color"] != styles[1]["color"]  # one method, one colour
    alone = run_styles(runs[:1] * 9)
    assert len({style["color"] for style in alone}) == len(
        COLORS
    )  # one method only: the runs differ in colour


def test_colours_are_variables_that_the_page_sets():
    text = svg(plot(panel(COUNTS, *[[i / 5] * 9 for i in range(3)], axis="share", reference=1.0)), "s")
    assert not re.findall(r"(?<!, )#[0-9a-f]{6}", text.lower())
    css = (Path(figures.__file__).parent / "page.css").read_text()
    for theme in css.split("prefers-color-scheme")[:2]:
        assert set(re.findall(r"var\((--\w+)", text)) <= set(re.findall(r"(--\w+):", theme))
    assert (
        'role="img"' in text
        and 'aria-label="A title"' in text
        and "<style" not in text
        and "DOCTYPE" not in text
    )


def contrast(color, other):
    def luminance(text):
        parts = [int(text[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear))

    light, dark = sorted((luminance(color), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_readable_in_both_themes():
    css = (Path(figures.__file__).parent / "page.css").read_text()
    for theme in css.split("prefers-color-scheme")[:2]:
        colors = dict(re.findall(r"(--\w+): (#[0-9a-f]{6})", theme))
        for name in ("--ink", "--muted", "--link", "--warn"):
            assert (
                contrast(colors[name], colors["--surface"]) >= 4.5
                and contrast(colors[name], colors["--page"]) >= 4.5
            ), name
        for number in range(len(COLORS)):
            assert contrast(colors[f"--run{number}"], colors["--surface"]) >= 2.0, number


def test_pictures_of_all_sections(tmp_path, monkeypatch):
    run_folder(tmp_path / "runs" / "0", "MEMIT", 150)
    run_folder(
        tmp_path / "runs" / "1", "_a long name of a method that $does$ _not_ end where one would expect", 150
    )
    runs = read_runs([tmp_path / "runs"])
    saved = []
    monkeypatch.setattr(Figure, "savefig", _keeping(Figure.savefig, saved))
    parts = [part for part in sections(runs) if part.name in ("ability", "time")]
    monkeypatch.setattr(page, "sections", lambda runs: parts)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        page.write_pictures(runs, tmp_path / "png")
    for name, figure in zip(("ability", "time"), saved):
        picture = imread(tmp_path / "png" / f"{name}.png")
        assert picture.shape[0] > 150 and picture[..., :3].std() > 0.02
        assert len(figure.legends[0].get_texts()) == 2
        legend = figure.legends[0].get_window_extent()
        assert legend.x0 >= 0 and legend.x1 <= figure.bbox.x1
        for part in (part for row in figure.subfigs for part in row.subfigs):
            for axes in part.axes:
                box = axes.get_window_extent()
                assert not box.overlaps(legend) and box.width > 60 and box.height > 40
                assert not any(box.overlaps(own.get_window_extent()) for own in part.legends)


def _keeping(original, saved):
    def save(figure, *args, **kwargs):
        saved.append(figure)
        return original(figure, *args, **kwargs)

    return save


def test_bars_with_parts_of_no_length():
    bars = Bars(
        "b",
        "Bars",
        ["a", "b"],
        {"one": [1.0, 0.0], "two": [0.0, 3.0], **{f"part {i}": [0.0, 0.1] for i in range(9)}},
    )
    figure, axes = drawn(bars)
    looks = {(style["color"], style["hatch"]) for style in map(bar_style, range(11))}
    assert axes.get_xlim()[1] > 3.9 and len(looks) == 11
    assert svg(plot(bars), "s").count("<path") > 10


def test_a_section_of_one_panel(tmp_path):
    write_png([plot(panel([3], [0.5]))], tmp_path / "s.png", dpi=40)
    assert (tmp_path / "s.png").stat().st_size > 1000
