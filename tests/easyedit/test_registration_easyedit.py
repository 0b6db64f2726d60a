"""The real EasyEdit in fresh processes: either import order, six packages, nothing left behind."""

import os

import pytest

from easyedit_neuron.host.loader import find_easyeditor
from helpers.fake_easyeditor import run

CHECK = """
import sys
from easyeditor import BaseEditor, NMKEHyperParams
from easyeditor.editors.batch_editor import BatchEditor
from easyeditor.util.alg_dict import ALG_DICT
import easyedit_neuron
assert ALG_DICT["NMKE"] is easyedit_neuron.apply_nmke_to_model
assert NMKEHyperParams is easyedit_neuron.NMKEHyperParams
assert BatchEditor.is_batchable_method("NMKE") and BatchEditor.is_batchable_method("MEMIT")
assert not BatchEditor.is_batchable_method("ROME")
assert sys.modules["easyeditor.editors.editor"].ALG_DICT is ALG_DICT
assert ALG_DICT["AlphaEdit"].__module__.startswith("easyeditor.")
assert easyedit_neuron.BaseEditor is BaseEditor
from easyedit_neuron.host.import_stubs import StubModule
left = [name for name, module in sys.modules.items() if isinstance(module, StubModule)]
assert not left, left
others = [(name, module) for name, module in list(sys.modules.items())
          if name.partition(".")[0] not in ("easyeditor", "easyedit_neuron")]
holders = [name for name, module in others
           if any(isinstance(value, StubModule) for value in vars(module).values())]
assert not holders, holders
assert not [f for f in sys.meta_path if type(f).__module__.startswith("easyedit_neuron")]
print("fine")
"""


@pytest.mark.parametrize("order", ["plugin first", "easyeditor first"])
def test_either_order(order, tmp_path):
    code = (
        "from easyedit_neuron.host import import_easyeditor\nimport_easyeditor()\n"
        if order == "plugin first"
        else "from easyedit_neuron.host.import_stubs import import_stubs\n"
        "from easyedit_neuron.host import loader, registration\n"
        "registration._remove_hook()\nloader._cache_package_checks()\n"
        "with import_stubs():\n    import easyeditor\n"
        "import sys\nassert 'NMKE' not in sys.modules['easyeditor.util.alg_dict'].ALG_DICT\n"
        "import easyedit_neuron\nassert easyedit_neuron.register() is True\n"
    )
    home = find_easyeditor().parent
    assert run(code + CHECK, home=home, importable=home, cwd=tmp_path).splitlines()[-1] == "fine"
    assert os.listdir(tmp_path) == []
