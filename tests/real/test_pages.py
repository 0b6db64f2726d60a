"""What the README and the notebook show is what the real model says."""

import contextlib
import io
import json

import pytest

from helpers.examples import EXAMPLES
from helpers.pages import REPOSITORY, blocks


@pytest.fixture(autouse=True)
def builtin(monkeypatch, here):
    monkeypatch.setenv("EASYEDIT_NEURON_HOST", "builtin")


def test_the_first_block_of_the_readme_prints_the_text_below_it(capsys):
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    exec(compile(blocks(text, "python")[0], "README.md", "exec"), {"__name__": "readme"})
    assert capsys.readouterr().out == blocks(text, "text")[0]


def test_the_notebook():
    """Its code as a program: every cell prints what it shows, but for seconds and norms."""
    cells = json.loads((EXAMPLES / "first_edits.ipynb").read_text(encoding="utf-8"))["cells"]
    names, compared = {"__name__": "notebook"}, 0
    for cell in (cell for cell in cells if cell["cell_type"] == "code"):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile("".join(cell["source"]), "cell", "exec"), names)
        shown = "".join("".join(output["text"]) for output in cell["outputs"])
        if "seconds" not in "".join(cell["source"]):
            assert printed.getvalue() == shown
            compared += bool(shown)
    assert compared == 4
