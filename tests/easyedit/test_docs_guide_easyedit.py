"""What the EasyEdit guide says of EasyEdit, of the clone that is here."""

import dataclasses
import inspect
import re
from pathlib import Path

import pytest
import yaml

import easyedit_neuron
from easyedit_neuron.errors import HparamsError
from easyedit_neuron.host.loader import find_easyeditor
from helpers.examples import quick

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "guides" / "easyedit.md").read_text(encoding="utf-8")
METHODS = ("AlphaEdit", "MEMIT", "ROME", "FT")
FOLDERS = {"AlphaEdit": "AlphaEdit", "MEMIT": "MEMIT", "ROME": "ROME", "R-ROME": "ROME", "FT": "FT"}


@pytest.mark.parametrize("method", METHODS)
def test_every_field_of_easyedits_is_one_of_ours_and_on_the_page(easyeditor, method):
    easyedit_fields = {
        field.name for field in dataclasses.fields(getattr(easyeditor, f"{method}HyperParams"))
    }
    own_fields = {
        field.name for field in dataclasses.fields(getattr(easyedit_neuron, f"{method}HyperParams"))
    }
    assert easyedit_fields <= own_fields and easyedit_fields <= set(re.findall(r"`(\w+)`", TEXT))


@pytest.mark.parametrize("folder", FOLDERS)
def test_easyedits_files_load(easyeditor, folder):
    cls = getattr(easyedit_neuron, f"{FOLDERS[folder]}HyperParams")
    files = sorted((find_easyeditor().parent / "hparams" / folder).glob("*.yaml"))
    assert len(files) > 5
    for file in files:
        if file.name == "chatglm4-9b.yaml" and folder == "FT":
            with pytest.raises(HparamsError, match="promptz_last"):
                cls.from_hparams(file)
            continue
        hparams = cls.from_hparams(file)
        values = easyeditor.HyperParams.construct_float_from_scientific_notation(
            yaml.safe_load(file.read_text(encoding="utf-8"))
        )
        for name in set(values) - {"alg_name"}:
            assert getattr(hparams, name) == values[name], (file.name, name)


def test_an_alphaedit_file_serves_nmke(easyeditor):
    for file in sorted((find_easyeditor().parent / "hparams" / "AlphaEdit").glob("*.yaml")):
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
        nmke = easyedit_neuron.NMKEHyperParams.from_dict({**values, "alg_name": "NMKE"}).to_dict()
        alphaedit = easyedit_neuron.AlphaEditHyperParams.from_hparams(file).to_dict()
        assert [nmke[name] for name in values if name != "alg_name"] == [
            alphaedit[name] for name in values if name != "alg_name"
        ]


def test_the_script_runs(easyeditor, tmp_path):
    """The block under "After", for the model that is here."""
    block = re.findall(r"```python\n(.*?)```", TEXT, re.S)[1]
    file = quick("NMKE", tmp_path)
    names = {}
    exec(block.replace("NMKE/llama3-8b-instruct", str(file)), names)
    (metric,) = names["metrics"]
    assert metric["pre"]["rewrite_acc"] != [1.0] and "neighborhood_acc" in metric["post"]["locality"]
    assert list(names["weights"]) == ["model.layers.1.mlp.down_proj.weight"]


def test_claims_about_the_editor(easyeditor):
    editor = inspect.unwrap(easyeditor.BaseEditor.edit)
    assert '"requests" in kwargs' in inspect.getsource(editor)
    with pytest.raises(TypeError, match="multiple values for argument 'requests'"):
        host = type(
            "Editor",
            (),
            {"hparams": object(), "alg_name": "FT", "edit_requests": easyeditor.BaseEditor.edit_requests},
        )()
        editor(host, "p", "t", requests=[{"prompt": "p", "target_new": "t"}])
    assert "subject" not in inspect.signature(inspect.unwrap(easyeditor.BaseEditor.normal_edit)).parameters
