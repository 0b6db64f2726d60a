"""What reaches the terminal: no control characters of somebody's texts, nothing that its encoding lacks."""

import io
import sys

import pytest

from easyedit_neuron.cli.output import fail, show


def test_control_characters_are_shown(capsys):
    show("Bad \x1b[2J\x1b]0;owned\x07Guy\u202e\n\tZoë 東京\n")
    assert capsys.readouterr().out == "Bad \\x1b[2J\\x1b]0;owned\\x07Guy\\u202e\n\tZoë 東京\n"
    assert fail("no \x1b[31m\nfile") == 2
    assert capsys.readouterr().err == "easyedit-neuron: error: no \\x1b[31m file\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_a_terminal_that_is_not_utf_8(encoding, monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding, errors="strict"))
    show("東京 is Zoë's\n")
    text = written.getvalue().decode(encoding)
    assert text.startswith("\\u6771\\u4eac is Zo") and ("ë" in text) == (encoding != "ascii")


@pytest.mark.parametrize("arguments, said", [(["log", "x"], ""), (["edits=1"], ": the same command goes on")])
def test_ctrl_c_is_one_line(arguments, said, monkeypatch, capsys):
    from easyedit_neuron import cli
    from easyedit_neuron.cli import app, commands

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(app, "run_command_line", interrupted)
    monkeypatch.setattr(commands, "run_command", interrupted)
    assert cli.main(arguments) == 130
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"easyedit-neuron: interrupted{said}")


def test_a_power_is_no_number_of_an_entry(tmp_path, capsys):
    """int() does not read every sign that is a digit."""
    from easyedit_neuron.cli import main

    assert main(["diff", f"{tmp_path}@\u00b2", str(tmp_path)]) == 2
    assert "there is no such folder" in capsys.readouterr().err
