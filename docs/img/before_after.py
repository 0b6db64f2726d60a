"""Draw ``before-after.png`` for the README: ``python docs/img/before_after.py`` (needs matplotlib).

The texts are the output of the Python block in the README, which ``tests/tiny/test_readme_output.py`` checks.
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch

INK, GREY, NEW, SAME = "#1f2328", "#656d76", "#b54708", "#1a6e3c"
ROWS = [
    (
        "the edited fact, in other words",
        "Baimo Nuser is on the staff of …",
        "Liro Works",
        "Treilmon Union",
        NEW,
    ),
    ("another fact of the person", "Baimo Nuser plays the …", "clarinet", "clarinet", SAME),
    ("another person with the old employer", "Tinde Hortman works for …", "Liro Works", "Liro Works", SAME),
]


def draw(path: Path) -> None:
    figure = plt.figure(figsize=(8, 2.75), dpi=200, facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, 8), ylim=(0, 2.75))
    axes.axis("off")
    for x, text in ((0.3, "prompt"), (4.3, "before"), (6.1, "after one edit")):
        axes.text(x, 2.48, text, color=GREY, fontsize=10, va="center")
    for number, (kind, prompt, before, after, colour) in enumerate(ROWS):
        y = 1.62 - 0.74 * number
        outline = dict(boxstyle="round,pad=0,rounding_size=0.08", facecolor="#f6f8fa", edgecolor="#d0d7de")
        axes.add_patch(FancyBboxPatch((0.15, y), 7.7, 0.62, **outline))
        axes.text(0.3, y + 0.42, prompt, color=INK, fontsize=11, va="center")
        axes.text(0.3, y + 0.17, kind, color=GREY, fontsize=8.5, va="center")
        axes.text(4.3, y + 0.31, before, color=INK, fontsize=11, va="center")
        axes.annotate("", (6.0, y + 0.31), (5.6, y + 0.31), arrowprops=dict(arrowstyle="->", color=GREY))
        axes.text(6.1, y + 0.31, after, color=colour, fontsize=11, va="center", weight="bold")
    figure.savefig(path)


if __name__ == "__main__":
    draw(Path(__file__).with_name("before-after.png"))
