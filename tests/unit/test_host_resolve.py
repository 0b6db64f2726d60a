"""Which BaseEditor is chosen."""

import pytest

from easyedit_neuron.errors import HostError
from easyedit_neuron.host import resolve_base_editor
from easyedit_neuron.host.base_editor import BaseEditor
from helpers.fake_easyeditor import run, write


def test_the_built_in_one_can_be_forced(monkeypatch):
    monkeypatch.setenv("EASYEDIT_NEURON_HOST", "builtin")
    assert resolve_base_editor() is BaseEditor
    monkeypatch.setenv("EASYEDIT_NEURON_HOST", "easyedit")
    assert resolve_base_editor("builtin") is BaseEditor
    with pytest.raises(HostError, match="'none' is unknown; choose one of auto, builtin, easyedit"):
        resolve_base_editor("none")


def test_easyedit_is_taken_where_it_is(tmp_path):
    code = "import easyedit_neuron as e\nprint(e.BaseEditor.__module__)\n"
    home = write(tmp_path)
    assert run(code, importable=home) == "easyeditor.editors.editor\n"
    assert run(code, home=home, EASYEDIT_NEURON_HOST="builtin") == "easyedit_neuron.host.base_editor\n"


RESOLVE = """
import os
from easyedit_neuron import host
from easyedit_neuron.errors import HostError
print(host.resolve_base_editor().__module__)
try:
    host.resolve_base_editor("easyedit")
except HostError as error:
    print(error)
"""
BUILTIN = "easyedit_neuron.host.base_editor"


def test_a_broken_easyedit_is_an_error_only_when_asked_for(tmp_path):
    out = run(RESOLVE, home=write(tmp_path, "import surely_not_there\n"))
    assert out.startswith(f"{BUILTIN}\n") and "surely_not_there" in out


def test_no_easyedit(tmp_path):
    code = 'os.environ["EASYEDIT_HOME"] = os.getcwd()\nprint(host.resolve_base_editor().__module__)\n'
    lines = run(RESOLVE + code, cwd=tmp_path).splitlines()
    assert lines[0] == lines[2] == BUILTIN and "clone github.com/zjunlp/EasyEdit" in lines[1]
