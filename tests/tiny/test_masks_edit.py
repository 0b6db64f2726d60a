"""Every mask by name on every path and stage: what it selects, and that nothing else changes."""

import json
from dataclasses import dataclass

import pytest
import torch

from easyedit_neuron.arch.tokens import encode, subject_last_index
from easyedit_neuron.arch.view import ModelView
from easyedit_neuron.attribution import (
    contribution_scores,
    integrated_gradients,
    neuron_scores,
    read_prompts,
    target_tokens,
)
from easyedit_neuron.edits.request import prepare
from easyedit_neuron.errors import HparamsError, MaskError, RequestError
from easyedit_neuron.hyperparameters.options import Options, doc
from easyedit_neuron.masks import NeuronMask, ScoringContext, get_mask, make_masks, register_mask, registry
from easyedit_neuron.masks.generic import TopOptions
from helpers.editing import CONTEXTS, REQUESTS, apply, changed_tensors, make_hparams, snapshot
from helpers.tiny_models import tiny_model

NAMES = ["nmke", "contribution", "ig", "activation", "random", "fixed", "mine"]
PROMPTS = [r["prompt"] for r in REQUESTS[:2]]
NEW = [r["target_new"] for r in REQUESTS[:2]]


@dataclass(kw_only=True)
class StepOptions(Options):
    step: int = doc("distance of two neurons", 3)


def every_third(scores, options, layer):
    return torch.arange(scores.shape[1]) % options.step == layer % options.step


@pytest.fixture(autouse=True)
def own_registry(monkeypatch):
    """The registry with a mask of a user's: every third neuron of each layer, as a plain tensor."""
    monkeypatch.setattr(registry, "_MASKS", dict(registry._MASKS))
    register_mask("mine", every_third, scores="mpc", options=StepOptions)


def quick(method, folder, mask, model_type="llama", **changes):
    if mask == "fixed":
        path = folder / "neurons.json"
        path.write_text(json.dumps({"1": [0, 5, 47], "2": [3]}))
        changes["mask_file"] = str(path)
    options = {"ig": {"steps": 4}}.get(mask)
    model, tok = tiny_model(model_type)
    changes = {
        "v_num_grad_steps": 2,
        "nullspace_threshold": 2.0,
        "mask": mask,
        "mask_options": options,
        **changes,
    }
    _, _, record = apply(model, tok, REQUESTS[:2], make_hparams(method, folder, **changes))
    return model, record


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("method", ["MEMIT", "AlphaEdit", "ROME"])
@pytest.mark.parametrize("stage", ["post", "solve"])
def test_only_masked_neurons_change(name, method, stage, tmp_path):
    model_type = "gpt2" if name in ("ig", "mine") else "llama"
    clean, _ = tiny_model(model_type)
    model, record = quick(method, tmp_path, name, model_type, mask_stage=stage)
    assert record.method == method and record.hparams["mask"] == name
    for layer, delta in record.layers.items():
        assert (
            delta.mask.dtype == torch.bool
            and 0 < delta.density < 1
            and delta.mask_info["density"] == delta.density
        )
        edited, before = (ModelView.of(m).down_matrix(layer) for m in (model, clean))
        assert torch.equal(edited[:, ~delta.mask], before[:, ~delta.mask])
        assert not delta.matrix()[:, ~delta.mask].any() and delta.matrix()[:, delta.mask].any()
    names = {ModelView.of(model).down_weight_name(layer) for layer in (1, 2)}
    now, then = dict(model.named_parameters()), dict(clean.named_parameters())
    assert {n for n in now if not torch.equal(now[n], then[n])} == names


def test_without_a_mask_every_neuron_changes(tmp_path):
    for method in ("MEMIT", "AlphaEdit", "ROME"):
        _, record = quick(method, tmp_path, "none")
        assert all(
            d.mask is None and d.density == 1.0 and d.matrix().any(0).all() for d in record.layers.values()
        )


def test_nmke_is_its_mask_on_the_path_of_alphaedit(tmp_path):
    masked, record = quick(
        "AlphaEdit", tmp_path, "nmke", mask_options={"tau": 20.0, "attribution_target": "target_new"}
    )
    nmke, _ = quick("NMKE", tmp_path, "nmke", tau=20.0, attribution_target="target_new")
    assert all(torch.equal(p, q) for p, q in zip(masked.parameters(), nmke.parameters()))
    contexts = [["{}"], CONTEXTS]
    model, tok = tiny_model("llama")
    hparams = make_hparams("NMKE", tmp_path, tau=20.0, attribution_target="target_new")
    context = ScoringContext(ModelView.of(model), tok, prepare(REQUESTS[:2]), contexts, [1, 2])
    masks = make_masks(context, hparams)
    assert all(torch.equal(masks[layer].mask, record.layers[layer].mask) for layer in (1, 2))


def test_contribution_selects_the_best_neurons_of_every_token(tmp_path):
    model, tok = tiny_model("llama")
    view, targets = ModelView.of(model), target_tokens(tok, PROMPTS, NEW)
    truth = target_tokens(tok, PROMPTS, [r["ground_truth"] for r in REQUESTS[:2]])
    for options, expected in (
        ({"top_k": 2}, contribution_scores(view, targets, [1, 2], predicted=True)),
        ({"top_k": 2, "attribution_target": "target_new"}, contribution_scores(view, targets, [1, 2])),
        ({"top_k": 2, "attribution_target": "ground_truth"}, contribution_scores(view, truth, [1, 2])),
    ):
        _, record = quick("MEMIT", tmp_path, "contribution", mask_options=options)
        for layer in (1, 2):
            best = expected.scores[layer].topk(2, dim=1).indices.unique()
            assert record.layers[layer].mask.nonzero().flatten().tolist() == best.tolist()


def test_ig_selects_the_share_of_the_best_at_the_subject(tmp_path):
    model, tok = tiny_model("llama")
    at = torch.tensor([subject_last_index(tok, r.prompt, r.subject) for r in prepare(REQUESTS[:2])])
    options = {"steps": 4, "activation_position": "subject_last", "whole_target": True, "top_share": 0.25}
    targets = target_tokens(tok, PROMPTS, NEW)
    scores = integrated_gradients(ModelView.of(model), targets, [1, 2], at, whole_target=True, steps=4).scores
    _, record = quick("AlphaEdit", tmp_path, "ig", mask_options=options)
    for layer in (1, 2):
        best = scores[layer].topk(12, dim=1).indices.unique()
        assert record.layers[layer].mask.nonzero().flatten().tolist() == best.tolist()


def test_a_mask_on_other_scores_and_other_prompts(tmp_path):
    model, tok = tiny_model("llama")
    texts = [c.replace("{}", p) for p in PROMPTS for c in ["{}", *CONTEXTS]]
    for prompts, rows in (("contexts", texts), ("bare", PROMPTS)):
        scores = neuron_scores(ModelView.of(model), encode(tok, rows), [2], kind="mpc").scores[2]
        _, record = quick(
            "MEMIT", tmp_path, "contribution", mask_options={"attribution": "mpc", "score_prompts": prompts}
        )
        assert torch.equal(record.layers[2].mask, get_mask("contribution")(scores, TopOptions(), 2).mask)


@pytest.mark.parametrize("kind", ["lps", "psa", "mpc", "activation"])
def test_prompts_that_have_been_run_are_not_run_again(kind, tmp_path):
    model, tok = tiny_model("llama")
    view, contexts = ModelView.of(model), [["{}"], CONTEXTS]
    hparams = make_hparams("AlphaEdit", tmp_path, mask="activation", mask_options={"attribution": kind})
    requests = prepare(REQUESTS[:2])
    expected = make_masks(ScoringContext(view, tok, requests, contexts, [1, 2]), hparams)
    texts = [c.replace("{}", p) for p in PROMPTS for c in ["{}", *CONTEXTS]]
    readings = read_prompts(view, encode(tok, texts), [1, 2])
    model.register_forward_pre_hook(lambda *_: pytest.fail("the model was run"))
    masks = make_masks(ScoringContext(view, tok, requests, contexts, [1, 2], readings), hparams)
    assert all(torch.equal(masks[layer].mask, expected[layer].mask) for layer in (1, 2))


@pytest.mark.parametrize(
    "mask, changes, error, words",
    [
        ("contribution", {"mask_options": {"top_k": 49}}, MaskError, "the layer has 48 neurons, got 49"),
        (
            "contribution",
            {"mask_options": {"attribution_target": "ground_truth"}},
            RequestError,
            "needs field 'ground_truth'",
        ),
        ("ig", {"mask_options": {"steps": 0}}, HparamsError, r"'steps': must be in \[1, 1000\], not 0"),
        (
            "nmke",
            {"mask_options": {"mask_values": "soft"}, "mask_stage": "solve"},
            MaskError,
            "a soft mask cannot restrict",
        ),
        ("random", {"mask_options": {"density": 2.0}}, HparamsError, "density"),
        ("half", {}, MaskError, "got \\[24\\]"),
    ],
)
def test_mistakes_that_show_at_the_edit_leave_the_model_alone(mask, changes, error, words, tmp_path):
    register_mask("half", lambda scores: NeuronMask(scores[0, ::2] > 0), scores="mpc")
    model, tok = tiny_model("llama")
    before = snapshot(model)
    request = {name: value for name, value in REQUESTS[0].items() if name != "ground_truth"}
    with pytest.raises(error, match=words):
        apply(
            model, tok, [request], make_hparams("MEMIT", tmp_path, v_num_grad_steps=1, mask=mask, **changes)
        )
    assert changed_tensors(model, before) == []
