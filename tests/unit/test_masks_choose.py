"""The mask in the hyperparameters: names, options of mask and scores, and where they may be set."""

import dataclasses
import json
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch

from easyedit_neuron.errors import HparamsError, MaskError
from easyedit_neuron.hyperparameters.options import Options, doc
from easyedit_neuron.masks import NeuronMask, ScoringContext, chosen_mask, make_masks, register_mask, registry
from easyedit_neuron.models.alphaedit.alphaedit_hparams import AlphaEditHyperParams
from easyedit_neuron.models.memit.memit_hparams import MEMITHyperParams
from easyedit_neuron.models.nmke.nmke_hparams import NMKEHyperParams
from easyedit_neuron.models.pnke.pnke_hparams import PNKEHyperParams

CLASSES = (AlphaEditHyperParams, MEMITHyperParams, NMKEHyperParams)


def hparams(cls, **changes):
    return cls(alg_name=cls.ALG_NAME, model_name="in memory", layers=[1], **changes)


def changed(options):
    """The options that differ from their defaults."""
    if options is None:
        return {}
    return {
        field.name: getattr(options, field.name)
        for field in dataclasses.fields(options)
        if field.default is dataclasses.MISSING or getattr(options, field.name) != field.default
    }


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
    chosen = chosen_mask(hparams(cls, mask=mask, mask_options=options))
    assert chosen.name == mask and chosen.scores.name == scores
    assert changed(chosen.options) | changed(chosen.scores_options) == {
        name: value for name, value in (options or {}).items() if name != "attribution"
    }


def test_defaults():
    assert [hparams(cls).mask for cls in CLASSES] == ["none", "none", "nmke"]


def test_the_fields_of_nmke_are_the_options_of_its_mask():
    fields = {"tau": 20.0, "amplify": 10.0, "attribution": "psa"}
    nmke = hparams(NMKEHyperParams, **fields, mask_options={"prompt_batch": 4})
    chosen = chosen_mask(nmke)
    assert chosen.scores.name == "psa" and chosen.options is nmke
    assert chosen.scores_options.amplify == 10.0 and chosen.scores_options.prompt_batch == 4
    elsewhere = {"tau": 20, "amplify": 10, "attribution": "psa"}
    same = chosen_mask(hparams(AlphaEditHyperParams, mask="nmke", mask_options=elsewhere))
    assert same.scores.name == "psa" and same.options.tau == 20.0
    assert changed(same.scores_options) == {"amplify": 10.0}


def test_the_options_of_pnke_have_short_names_elsewhere():
    own = chosen_mask(hparams(PNKEHyperParams, ig_steps=7, seed=3))
    assert own.options.ig_steps == own.scores_options.ig_steps == 7 and own.scores_options.seed == 3
    elsewhere = chosen_mask(hparams(MEMITHyperParams, mask="pnke", mask_options={"steps": 7, "alpha": 0.2}))
    assert (elsewhere.scores_options.ig_steps, elsewhere.options.alpha) == (7, 0.2)
    with pytest.raises(HparamsError, match="set 'steps' by the field 'ig_steps'"):
        hparams(PNKEHyperParams, mask_options={"steps": 7})


def test_the_seed_is_that_of_the_method_unless_told():
    assert chosen_mask(hparams(MEMITHyperParams, mask="random", seed=7)).options.seed == 7
    mask_options = {"density": 0.25, "seed": 1}
    options = chosen_mask(hparams(MEMITHyperParams, mask="random", mask_options=mask_options)).options
    assert (options.density, options.seed) == (0.25, 1)
    options = chosen_mask(hparams(NMKEHyperParams, mask="random", mask_density=0.1, seed=3)).options
    assert (options.density, options.seed) == (0.1, 3)


def test_given_neurons(tmp_path):
    path = tmp_path / "neurons.json"
    path.write_text(json.dumps({"1": [4]}))
    for cls in CLASSES:
        by_file = chosen_mask(hparams(cls, mask="fixed", mask_file=str(path)))
        assert by_file.options.indices == {1: [4]}
        by_option = chosen_mask(hparams(cls, mask="fixed", mask_options={"indices": [2]}))
        assert by_option.options.indices == [2]


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
        (dict(mask="contribution", mask_options={"top_k": 2.5}), "option 'top_k': must be an integer"),
        (
            dict(mask="ig", mask_options={"attribution_target": "target"}),
            "option 'attribution_target': must be .*did you mean 'target_new'",
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


@dataclass(kw_only=True)
class CountOptions(Options):
    count: int = doc("neurons")


def first(scores, options, layer):
    return torch.arange(scores.shape[1]) < options.count + layer


def test_a_mask_from_outside_brings_its_options(own_registry):
    register_mask("first", first, scores="none", options=CountOptions)
    chosen = chosen_mask(hparams(MEMITHyperParams, mask="first", mask_options={"count": "4"}))
    assert chosen.options.count == 4
    with pytest.raises(HparamsError, match="needs the option 'count'"):
        hparams(AlphaEditHyperParams, mask="first")
    with pytest.raises(HparamsError, match="no option 'cuont': did you mean 'count'"):
        hparams(AlphaEditHyperParams, mask="first", mask_options={"count": 1, "cuont": 4})
    replaced = dataclasses.replace(hparams(MEMITHyperParams), mask="first", mask_options={"count": 2})
    assert chosen_mask(replaced).name == "first"


def masks_of(name, layers, mask_options=None):
    view = SimpleNamespace(model=None, d_ff=6, device_of=lambda layer: "cpu")
    settings = hparams(MEMITHyperParams, mask=name, mask_options=mask_options)
    return make_masks(ScoringContext(view, None, [], [], layers), settings)


@pytest.mark.parametrize(
    "result, words",
    [
        (torch.ones(5, dtype=torch.bool), r"expected a tensor \[6\] for layer 0, got \[5\]"),
        ([True] * 6, "got list"),
        (torch.full((6,), 1.5), "weights between 0 and 1"),
        (NeuronMask(torch.full((6,), float("nan"))), "weights between 0 and 1"),
        (torch.arange(6), "weights between 0 and 1"),
    ],
)
def test_what_a_mask_function_returns_is_checked(result, words, own_registry):
    register_mask("own", lambda scores: result, scores="none")
    with pytest.raises(MaskError, match=words):
        masks_of("own", [0])


def test_a_plain_tensor_is_a_mask_and_the_layer_is_handed_on(own_registry):
    register_mask("first", first, scores="none", options=CountOptions)
    masks = masks_of("first", [2, 4], {"count": 1})
    assert {layer: mask.indices.tolist() for layer, mask in masks.items()} == {
        2: [0, 1, 2],
        4: [0, 1, 2, 3, 4],
    }
    assert masks[2].weight.tolist() == [1, 1, 1, 0, 0, 0]
    assert masks[2].rows.dtype == torch.bool and masks[2].binary
