"""The Python block of the README prints what the README shows."""

from helpers.pages import REPOSITORY, blocks


def test_the_first_block_prints_the_text_below_it(monkeypatch, capsys):
    monkeypatch.setenv("EASYEDIT_NEURON_HOST", "builtin")
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    exec(compile(blocks(text, "python")[0], "README.md", "exec"), {"__name__": "readme"})
    assert capsys.readouterr().out == blocks(text, "text")[0]
