"""What the README and the notebook show is what the real model says."""

import contextlib
import io
import json

import pytest

from easyedit_neuron.models.lasting import background
from helpers.examples import EXAMPLES
from helpers.long import IS_LONG, LONG
from helpers.pages import REPOSITORY, blocks


@pytest.fixture(autouse=True)
def builtin(monkeypatch, here):
    """Where it must be quick, the model writes a quarter of the text that its statistics have by default: it
    says the same, see docs/results/ideas.md, "The threshold of the match"."""
    monkeypatch.setenv("EASYEDIT_NEURON_HOST", "builtin")
    if not IS_LONG:
        monkeypatch.setattr(background, "enough_texts", lambda d_ff: 64)


def test_the_first_block_of_the_readme_prints_the_text_below_it(capsys):
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    exec(compile(blocks(text, "python")[0], "README.md", "exec"), {"__name__": "readme"})
    assert capsys.readouterr().out == blocks(text, "text")[0]


@pytest.mark.parametrize(
    "name",
    [
        "first_edits",
        pytest.param("which_neurons", marks=LONG),
        pytest.param("share_and_undo", marks=LONG),
        pytest.param("a_thousand_edits", marks=LONG),
    ],
)
def test_a_notebook_prints_what_it_shows(name, here, monkeypatch):
    """Its code as a program, cell by cell, but for seconds and sizes of files."""
    monkeypatch.setenv("MPLBACKEND", "agg")
    (here / "docs").symlink_to(REPOSITORY / "docs")  # some read results beside them
    (here / "examples").mkdir()
    monkeypatch.chdir(here / "examples")
    cells = json.loads((EXAMPLES / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    names, compared = {"__name__": "notebook"}, 0
    for cell in (cell for cell in cells if cell["cell_type"] == "code"):
        printed, source = io.StringIO(), "".join(cell["source"])
        with contextlib.redirect_stdout(printed):
            exec(compile(source, "cell", "exec"), names)
        shown = "".join("".join(output.get("text", ())) for output in cell["outputs"])
        if "seconds" not in source and "KB" not in source:
            assert printed.getvalue() == shown
            compared += bool(shown)
    assert compared >= 4
