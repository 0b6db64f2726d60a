"""Registration with a package laid out like EasyEdit, in fresh processes: either import order, once, and no
trace left."""

import pytest

from helpers.fake_easyeditor import run, write

REGISTER_METHODS = """
from easyedit_neuron import registry
from easyedit_neuron.registry import MethodSpec, register_method
import helpers.plain_method
PLAIN = "helpers.plain_method:apply_plain"
PLAIN_HPARAMS = "helpers.plain_method:PlainHyperParams"
OURS = {name for spec in registry.methods(plugin=True) for name in spec.names}
registry._METHODS.clear()
register_method(MethodSpec("Plain", PLAIN, PLAIN_HPARAMS, aliases=("PLN",), batchable=True, plugin=True))
register_method(MethodSpec("Later", "easyedit_neuron.models.later.later_main:f", "x:y", plugin=True))
register_method(MethodSpec("Builtin", PLAIN, "x:y", batchable=True))
"""
CHECK = """
import sys
from easyeditor.util.alg_dict import ALG_DICT
from easyeditor.editors.batch_editor import BatchEditor
from easyeditor import PlainHyperParams
import helpers.plain_method as m
assert len(set(ALG_DICT) - OURS) == 27 + 2 and ALG_DICT["PLN"] is ALG_DICT["Plain"] is m.apply_plain
assert PlainHyperParams is m.PlainHyperParams
names = "MEMIT", "ROME", "Plain", "PLN", "Builtin", "Other"
batchable = [name for name in names if BatchEditor.is_batchable_method(name)]
assert batchable == ["MEMIT", "Plain", "PLN"], batchable
assert "Plain" not in BatchEditor.__members__
module = sys.modules["easyeditor.util.alg_dict"]
assert type(module.__loader__).__name__ == "SourceFileLoader"
assert module.__spec__.loader is module.__loader__
assert not [f for f in sys.meta_path if type(f).__module__.startswith("easyedit_neuron")]
from easyeditor import BaseEditor
wrapped, guarded = BatchEditor.is_batchable_method, dict(vars(BaseEditor))
import easyedit_neuron
assert easyedit_neuron.register() is True and easyedit_neuron.register() is True
assert BatchEditor.is_batchable_method is wrapped and dict(vars(BaseEditor)) == guarded
assert BaseEditor.edit.checked_by_easyedit_neuron
assert BaseEditor.edit.__module__ == "easyeditor.editors.editor"
print("fine")
"""


@pytest.mark.parametrize(
    "code",
    [
        "import easyedit_neuron\n" + REGISTER_METHODS + "import easyeditor\n",
        REGISTER_METHODS
        + "import easyedit_neuron as e\nassert e.register() is e.register() is False\n"
        + "import easyeditor.editors\n",
        REGISTER_METHODS
        + "from easyeditor.util import alg_dict\nfrom easyeditor.editors import batch_editor\n",
        "import easyeditor\n"
        + REGISTER_METHODS
        + "import easyedit_neuron\nassert easyedit_neuron.register() is True\n",
    ],
    ids=["plugin first", "twice before", "modules by name", "easyeditor first"],
)
def test_either_order(tmp_path, code):
    assert run(code + CHECK, importable=write(tmp_path)) == "fine\n"


def test_without_easyedit_nothing_happens():
    assert (
        run("""
import sys, easyedit_neuron
hooks = lambda: [f for f in sys.meta_path if type(f).__module__.startswith("easyedit_neuron")]
assert easyedit_neuron.register() is False and len(hooks()) == 1
assert "torch" not in sys.modules and "easyeditor" not in sys.modules
import json.tool, xml.dom
try:
    import easyeditor
except ModuleNotFoundError as error:
    print(error)
""")
        == "No module named 'easyeditor'\n"
    )


def test_a_failure_of_ours_leaves_easyedit_usable(tmp_path):
    out = run(
        REGISTER_METHODS
        + """
register_method(MethodSpec("Broken", "helpers.plain_method:not_there", "x:y", plugin=True))
import easyedit_neuron, easyeditor
from easyeditor.util.alg_dict import ALG_DICT
print(ALG_DICT["ROME"].__module__)
try:
    easyedit_neuron.register()
except AttributeError as error:
    print("not_there" in str(error))
""",
        importable=write(tmp_path),
    )
    assert out == "easyeditor.util.alg_dict\nTrue\n"


def test_a_name_that_easyedit_has_is_replaced_and_said(tmp_path):
    out = run(
        REGISTER_METHODS
        + """
import logging, sys
logging.basicConfig(stream=sys.stdout)
register_method(MethodSpec("ROME", PLAIN, PLAIN_HPARAMS, plugin=True))
import easyedit_neuron, easyeditor
from easyeditor.util.alg_dict import ALG_DICT
assert ALG_DICT["ROME"] is helpers.plain_method.apply_plain
""",
        importable=write(tmp_path),
    )
    assert "already has a method 'ROME'" in out and out.count("WARNING") == 1
