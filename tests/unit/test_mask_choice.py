"""The mask in the hyperparameters: names, options of mask and scores, and where they may be set."""

import dataclasses
import json

import pytest
import torch

from easyedit_neuron.errors import HparamsError, MaskError
from easyedit_neuron.masks import MaskChoice, NeuronMask, register_mask, registry
from easyedit_neuron.models.alphaedit.alphaedit_hparams import AlphaEditHyperParams
from easyedit_neuron.models.memit.memit_hparams import MEMITHyperParams
from easyedit_neuron.models.nmke.nmke_hparams import NMKEHyperParams

CLASSES = (AlphaEditHyperParams, MEMITHyperParams, NMKEHyperParams)


def hparams(cls, **changes):
    return cls(alg_name=cls.ALG_NAME, model_name="in memory", layers=[1], **changes)


@pytest.fixture
def own_registry(monkeypatch):
    monkeypatch.setattr(registry, "_MASKS", dict(registry._MASKS))


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize(
    "mask, options, scores",
    [
        ("none", None, "none"),
        ("contribution", {"top_share": 0.2, "attribution_target": "ground_truth"}, "contribution"),
        ("ig", {"top_k": 3, "steps": 5, "activation_position": "subject_last"}, "ig"),
        ("activation", {}, "activation"),
        ("ig", {"attribution": "contribution", "prompt_batch": 2}, "contribution"),
    ],
)
def test_every_mask_has_a_name_in_every_method(cls, mask, options, scores):
    choice = hparams(cls, mask=mask, mask_options=options).mask_choice()
    assert choice.name == mask and choice.scores == scores
    assert {**choice.mask_options, **choice.score_options} == {
        k: v for k, v in (options or {}).items() if k != "attribution"
    }


def test_defaults():
    assert [hparams(cls).mask for cls in CLASSES] == ["none", "none", "nmke"]


def test_the_fields_of_nmke_are_the_options_of_its_mask():
    choice = hparams(
        NMKEHyperParams, tau=20.0, amplify=10.0, attribution="psa", mask_options={"prompt_batch": 4}
    ).mask_choice()
    assert choice.scores == "psa" and choice.mask_options["tau"] == 20.0
    assert choice.score_options == {
        "amplify": 10.0,
        "attribution_target": "predicted",
        "reference_quirks": False,
        "prompt_batch": 4,
    }
    same = hparams(
        AlphaEditHyperParams, mask="nmke", mask_options={"tau": 20, "amplify": 10, "attribution": "psa"}
    ).mask_choice()
    assert (same.scores, same.mask_options, same.score_options) == ("psa", {"tau": 20.0}, {"amplify": 10.0})


def test_the_seed_is_that_of_the_method_unless_told():
    assert hparams(MEMITHyperParams, mask="random", seed=7).mask_choice().mask_options == {"seed": 7}
    given = {"density": 0.25, "seed": 1}
    assert hparams(MEMITHyperParams, mask="random", mask_options=given).mask_choice().mask_options == given
    random = hparams(NMKEHyperParams, mask="random", mask_density=0.1, seed=3).mask_choice()
    assert random.mask_options == {"density": 0.1, "seed": 3}


def test_given_neurons(tmp_path):
    path = tmp_path / "neurons.json"
    path.write_text(json.dumps({"1": [4]}))
    for cls in CLASSES:
        assert hparams(cls, mask="fixed", mask_file=str(path)).mask_choice().mask_options == {
            "indices": {"1": [4]}
        }
        assert hparams(cls, mask="fixed", mask_options={"indices": [2]}).mask_choice().mask_options == {
            "indices": [2]
        }


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize(
    "changes, words",
    [
        (
            dict(mask="contribtion"),
            "'mask': 'contribtion' is unknown: did you mean 'contribution'.*activation, contribution",
        ),
        (
            dict(mask="contribution", mask_options={"topk": 1}),
            "'mask_options': mask 'contribution' .*'topk': did you mean 'top_k'",
        ),
        (dict(mask="contribution", mask_options={"layer": 1}), "no option 'layer'"),
        (dict(mask="contribution", mask_options={"top_k": 2.5}), "option 'top_k' must be an integer"),
        (
            dict(mask="ig", mask_options={"attribution_target": "target"}),
            "'attribution_target' must be .*did you mean 'target_new'",
        ),
        (
            dict(mask="ig", mask_options={"attribution": "lsp"}),
            "attribution 'lsp' is unknown: did you mean 'lps'",
        ),
        (dict(mask="none", mask_options={"top_k": 1}), "mask 'none' .* no option 'top_k'"),
        (dict(mask="fixed"), "'mask_file': mask 'fixed' needs the file"),
        (dict(mask="fixed", mask_file="nowhere.json"), "'mask_file': nowhere.json cannot be read"),
        (dict(mask=3), "'mask': must be a string"),
        (dict(mask="ig", mask_options=["top_k"]), "'mask_options': must be a mapping"),
    ],
)
def test_mistakes_are_found_when_the_hyperparameters_are_made(cls, changes, words):
    with pytest.raises(HparamsError, match=words):
        hparams(cls, **changes)


@pytest.mark.parametrize(
    "changes, words",
    [
        (dict(mask_options={"tau": 3.0}), "set 'tau' by the field 'tau'"),
        (dict(mask="random", mask_options={"density": 0.1}), "set 'density' by the field 'mask_density'"),
        (
            dict(mask="ig", attribution_target="ground_truth"),
            "'attribution_target': is read by mask 'nmke'; mask 'ig' takes it",
        ),
        (dict(mask="contribution", attribution="mpc"), "'attribution': is read by mask 'nmke'"),
    ],
)
def test_an_option_of_nmke_has_one_place(changes, words):
    with pytest.raises(HparamsError, match=words):
        hparams(NMKEHyperParams, **changes)


def test_a_mask_of_ones_own_brings_its_options(own_registry):
    @register_mask("first", scores="none")
    def first(scores, count: int, step: float = 1.0):
        return torch.arange(scores.shape[1]) < count

    choice = hparams(MEMITHyperParams, mask="first", mask_options={"count": "4"}).mask_choice()
    assert choice.mask_options == {"count": 4}
    with pytest.raises(HparamsError, match="mask 'first' needs the option 'count'"):
        hparams(AlphaEditHyperParams, mask="first")
    with pytest.raises(HparamsError, match="no option 'cuont': did you mean 'count'"):
        hparams(AlphaEditHyperParams, mask="first", mask_options={"count": 1, "cuont": 4})
    assert (
        dataclasses.replace(hparams(MEMITHyperParams), mask="first", mask_options={"count": 2})
        .mask_choice()
        .name
        == "first"
    )


@dataclasses.dataclass
class Sizes:
    d_ff: int = 6
    device: str = "cpu"

    def device_of(self, layer):
        return self.device


@pytest.mark.parametrize(
    "result, words",
    [
        (torch.ones(5, dtype=torch.bool), "expected a boolean tensor \\[6\\] or a NeuronMask, got \\[5\\]"),
        ([True] * 6, "got list"),
        (torch.full((6,), 1.5), "weights between 0 and 1"),
        (NeuronMask(torch.full((6,), float("nan"))), "weights between 0 and 1"),
        (torch.arange(6), "weights between 0 and 1"),
    ],
)
def test_what_a_mask_function_returns_is_checked(result, words, own_registry):
    from easyedit_neuron.masks.scores import Edit

    register_mask("own", lambda scores: result, scores="none")
    with pytest.raises(MaskError, match=words):
        MaskChoice.of("own").masks(Edit(Sizes(), None, [], [], [0]))


def test_a_plain_tensor_is_a_mask_and_the_layer_is_handed_on(own_registry):
    from easyedit_neuron.masks.scores import Edit

    register_mask("own", lambda scores, layer: torch.arange(6) == layer, scores="none")
    masks = MaskChoice.of("own").masks(Edit(Sizes(), None, [], [], [2, 5]))
    assert {layer: mask.indices.tolist() for layer, mask in masks.items()} == {2: [2], 5: [5]}
    assert (
        masks[2].weight.tolist() == [0, 0, 1, 0, 0, 0]
        and masks[2].rows.dtype == torch.bool
        and masks[2].binary
    )
