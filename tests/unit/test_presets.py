"""Published settings by name, on top of any model's file."""

import pytest

from easyedit_neuron import FiNEHyperParams, MEMITHyperParams, NMKEHyperParams, resources
from easyedit_neuron.errors import HparamsError
from easyedit_neuron.hyperparameters.variant import Variant
from easyedit_neuron.registry import get_method, methods
from easyedit_neuron.studies.command import hparams_of
from helpers.pages import REPOSITORY

CASES = [
    (file, name)
    for file in resources.shipped_hparams()
    for name in get_method(file.split("/")[0]).load_hparams().PRESETS
]


@pytest.mark.parametrize(("file", "name"), CASES)
def test_every_preset_goes_with_every_shipped_file(file, name):
    cls = get_method(file.split("/")[0]).load_hparams()
    hparams = cls.from_hparams(file)
    chosen = hparams.override({"preset": name})
    changed = {field for field, value in chosen.to_dict().items() if value != hparams.to_dict()[field]}
    assert changed <= set(cls.PRESETS[name].values)
    for field, value in cls.PRESETS[name].values.items():
        assert getattr(chosen, field) == value, field
        assert type(getattr(chosen, field)) is type(value), field


def test_the_papers_methods_have_the_papers_settings():
    having = {spec.name for spec in methods() if getattr(spec.load_hparams(), "PRESETS", {})}
    assert having >= {"NMKE", "PNKE", "FiNE", "KNE"}
    assert all("paper" in get_method(name).load_hparams().PRESETS for name in having)
    assert len(CASES) > 40


def test_other_changes_come_behind_the_preset():
    hparams = NMKEHyperParams.from_hparams("NMKE/smollm2-135m-instruct")
    assert hparams.mask_stage == "solve"
    chosen = hparams.override(
        {"ratio": "fixed", "general_ratio": 0.1, "specific_ratio": 0.2, "preset": "paper"}
    )
    assert (chosen.ratio, chosen.score_form, chosen.mask_stage) == ("fixed", "raw", "post")
    assert chosen.layers == hparams.layers and chosen.v_lr == hparams.v_lr


def test_a_variant_of_a_study_or_of_the_bench():
    fields = Variant.of("FiNE method.preset=paper method.neuron_num=7").fields()
    chosen = hparams_of("FiNE", "smollm2-135m-instruct", None, **fields)
    assert (chosen.edit_loss, chosen.gamma, chosen.neuron_num, chosen.lr) == ("sum", 0.0, 7, 2e-3)


def test_an_unknown_preset_is_named_with_the_known_ones():
    hparams = FiNEHyperParams.from_hparams("FiNE/tiny-llama")
    with pytest.raises(HparamsError, match="field 'preset': unknown preset 'papre'.*'paper'"):
        hparams.override({"preset": "papre"})
    with pytest.raises(HparamsError, match="file.yaml: field 'preset'"):
        hparams.override({"preset": 3}, source="file.yaml")
    with pytest.raises(HparamsError, match="MEMIT has none"):
        MEMITHyperParams.from_hparams("MEMIT/tiny-llama").override({"preset": "paper"})


def test_the_page_of_hyperparameters_says_where_a_preset_is_from():
    page = (REPOSITORY / "docs/reference/hyperparameters.md").read_text(encoding="utf-8")
    for spec in methods():
        for name, preset in getattr(spec.load_hparams(), "PRESETS", {}).items():
            assert f"| `{name}` | {preset.source} |" in page
