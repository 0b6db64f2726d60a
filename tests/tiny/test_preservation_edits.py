"""Edits that keep a subject's other facts: the search against the plain formula, and what a sequence of edits
does with its keys."""

import pytest
import torch

from easyedit_neuron.arch.view import ModelView
from easyedit_neuron.edits.request import prepare
from easyedit_neuron.edits.session import ModelSession
from easyedit_neuron.errors import HparamsError
from easyedit_neuron.locate_then_edit.compute_z import compute_z
from easyedit_neuron.locate_then_edit.preservation import PreservedPrompt
from easyedit_neuron.locate_then_edit.sequential_state import sequential_state
from helpers.editing import CONTEXTS, REQUESTS, apply, make_hparams
from helpers.plain_search import PlainLoss, plain_search
from helpers.pnke_cases import pnke_hparams
from helpers.tiny_models import tiny_model

FLAT, LAYER = ["{}", *CONTEXTS], 1
KEPT = [
    [PreservedPrompt("{} plays"), PreservedPrompt("The home of {} is", " Oslo city")],
    [],
    [
        PreservedPrompt("{} lives in"),
        PreservedPrompt("{} speaks", " French"),
        PreservedPrompt("The country of {}"),
        PreservedPrompt("{} eats", " fish and rice"),
    ],
]
MORE = {"prompt": "Anna Berg plays", "subject": "Anna Berg", "target_new": "tennis", "ground_truth": "golf"}


@pytest.mark.parametrize(
    "model_type, site", [("llama", "layer_out"), ("gpt2", "layer_out"), ("gemma2", "ffn_out")]
)
def test_search_in_float64(model_type, site, tmp_path, exact):
    """Requests with two, no and four other prompts in one batch, some with objects, each alone by the plain
    formula."""
    model, tok = tiny_model(model_type, dtype=torch.float64)
    view = ModelView.of(model)
    module = view.layer(LAYER) if site == "layer_out" else view.mlp(LAYER)
    hparams = make_hparams("AlphaEdit", tmp_path, v_num_grad_steps=6, keep_prompts=3, keep_factor=0.7)
    expected = [
        plain_search(model, module, tok, request, hparams, FLAT, preserved)
        for request, preserved in zip(REQUESTS, KEPT)
    ]
    stops = sorted(min(losses) for _, _, losses in expected)
    hparams = hparams.override(
        {"v_stop_loss": (stops[0] + stops[1]) / 2}
    )  # one leaves the batch before the others
    expected = [
        plain_search(model, module, tok, request, hparams, FLAT, preserved)
        for request, preserved in zip(REQUESTS, KEPT)
    ]
    targets = compute_z(view, tok, prepare(REQUESTS), hparams, FLAT, LAYER, site=site, preserved=KEPT).targets
    for target, (_, delta, losses) in zip(targets, expected):
        assert target.losses == pytest.approx(losses, rel=1e-8)
        torch.testing.assert_close(
            target.value - target.initial, delta, rtol=1e-6, atol=1e-7
        )  # Adam divides by small second moments
    without = compute_z(view, tok, prepare(REQUESTS), hparams, FLAT, LAYER, site=site).targets
    assert without[1].losses == pytest.approx(targets[1].losses, rel=1e-9) and without[2].losses[
        1:
    ] != pytest.approx(targets[2].losses[1:], rel=1e-4)


def test_prompts_that_ask_for_the_edited_fact_are_not_kept(tmp_path):
    model, tok = tiny_model("llama", dtype=torch.float64)
    hparams, request = make_hparams("AlphaEdit", tmp_path, keep_prompts=2), REQUESTS[0]
    view, delta = ModelView.of(model), torch.full((32,), 0.1, dtype=torch.float64)
    again = request["prompt"].replace(
        request["subject"], "{}"
    )  # answered as the edited prompt is: it is the edited prompt
    loss = PlainLoss(model, view.layer(LAYER), tok, request, FLAT, [PreservedPrompt(again)])
    assert loss.keeping(delta, hparams) == 0.0 and loss(delta, hparams) > 0
    plain = compute_z(view, tok, prepare([request]), hparams, FLAT, LAYER).targets
    both = compute_z(
        view, tok, prepare([request]), hparams, FLAT, LAYER, preserved=[[PreservedPrompt(again)]]
    ).targets
    torch.testing.assert_close(both[0].value, plain[0].value, rtol=1e-9, atol=1e-12)


OPTIONS = pytest.mark.parametrize("options", [{"keep_prompts": 4}, {"keep_edits": True}])


@OPTIONS
@pytest.mark.parametrize("method", ["MEMIT", "ROME", "PNKE-adam"])
def test_an_edit_knows_the_subjects_earlier_one(method, options, tmp_path):
    """The search of every path against the plain one, with the prompt of the edit before in it."""
    model, tok = tiny_model("llama", dtype=torch.float64)
    view, earlier = ModelView.of(model), REQUESTS[0]
    module = view.mlp(LAYER) if method == "ROME" else view.layer(LAYER)
    usual = dict(layers=[LAYER], v_num_grad_steps=5, keep_templates=[], **options)
    hparams = (
        pnke_hparams(tmp_path, mask="none", solver="adam", adam_steps=2, **usual)
        if method == "PNKE-adam"
        else make_hparams(method, tmp_path, **usual)
    )
    apply(model, tok, [earlier], hparams)
    template = earlier["prompt"].replace(earlier["subject"], "{}")
    preserved = [PreservedPrompt(template, earlier["target_new"] if "keep_edits" in options else None)]
    losses = [
        plain_search(model, module, tok, MORE, hparams, FLAT, prompts)[2] for prompts in (preserved, [])
    ]
    loss_curve = apply(model, tok, [MORE], hparams)[2].losses[0]
    assert loss_curve == pytest.approx(losses[0], rel=1e-7) and loss_curve != pytest.approx(
        losses[1], rel=1e-4
    )


@pytest.mark.parametrize("method", ["MEMIT", "ROME"])
def test_two_edits_of_a_subject_in_one_batch(method, tmp_path):
    """Each is searched for with the other in view; ROME makes them one after the other, and the first knows
    nothing of the second."""
    model, tok = tiny_model("llama", dtype=torch.float64)
    view, first = ModelView.of(model), REQUESTS[0]
    module = view.mlp(LAYER) if method == "ROME" else view.layer(LAYER)
    hparams = make_hparams(method, tmp_path, layers=[LAYER], v_num_grad_steps=4, keep_edits=True)
    preserved = [
        [PreservedPrompt(edit["prompt"].replace(edit["subject"], "{}"), edit["target_new"])]
        for edit in (MORE, first)
    ]
    expected = [
        plain_search(model, module, tok, first, hparams, FLAT, [] if method == "ROME" else preserved[0])[2]
    ]
    if method == "MEMIT":
        expected.append(plain_search(model, module, tok, MORE, hparams, FLAT, preserved[1])[2])
    else:
        twin, _ = tiny_model("llama", dtype=torch.float64)
        apply(twin, tok, [first], hparams)
        expected.append(
            plain_search(twin, ModelView.of(twin).mlp(LAYER), tok, MORE, hparams, FLAT, preserved[1])[2]
        )
    record = apply(model, tok, [first, MORE], hparams)[2]
    for loss_curve, losses in zip(record.losses, expected):
        assert loss_curve == pytest.approx(losses, rel=1e-7)


@OPTIONS
@pytest.mark.parametrize(
    "method, changes",
    [("MEMIT", {"accumulate_keys": True}), ("AlphaEdit", {}), ("NMKE", {"mask_stage": "solve"})],
)
def test_a_second_edit_of_a_subject_arrives_in_full(method, changes, options, tmp_path):
    """With its earlier key protected only a part of the residual reaches it; a key that gives way stays in
    the buffer for others."""
    delivered = {}
    for keeps in ({}, options):
        model, tok = tiny_model("llama")
        hparams = make_hparams(method, tmp_path, layers=[1], **changes, **keeps)
        for request in (REQUESTS[0], REQUESTS[2], MORE):
            record = apply(model, tok, [request], hparams)[2]
        delivered[bool(keeps)] = record.layers[1].residual_share
        state, _ = sequential_state(ModelView.of(model), tok, hparams)
        assert len(state.buffer(1)) == 3 and [pair for step in state.edited for pair in step] == [
            request.fact for request in prepare([REQUESTS[0], REQUESTS[2], MORE])
        ]
    assert delivered[True] > delivered[False] + 0.05


def test_edits_that_were_taken_back_are_not_known_any_more(tmp_path):
    model, tok = tiny_model("llama")
    hparams = make_hparams("MEMIT", tmp_path, keep_prompts=4, accumulate_keys=True)
    apply(model, tok, REQUESTS[:1], hparams)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    apply(model, tok, [MORE], hparams)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(before[name])  # as a host does
    state, _ = sequential_state(ModelView.of(model), tok, hparams)
    assert [[subject for subject, _, _ in step] for step in state.edited] == [
        ["Anna Berg"]
    ] and state.counts == [1]


@pytest.mark.parametrize(
    "field, value", [("keep_prompts", -1), ("keep_factor", -0.5), ("keep_templates", ["no subject"])]
)
def test_impossible_values(field, value, tmp_path):
    with pytest.raises(HparamsError, match=field):
        make_hparams("MEMIT", tmp_path, **{field: value})


@pytest.mark.parametrize(
    "method, changes",
    [
        ("MEMIT", {"accumulate_keys": True}),
        ("AlphaEdit", {}),
        ("NMKE", {"mask": "random", "mask_density": 0.5}),
        ("NMKE", {"mask": "random", "mask_density": 0.5, "mask_stage": "solve"}),
    ],
)
def test_a_fact_is_edited_back(method, changes, tmp_path):
    """The second edit of a prompt is solved as if the first had left no key; another subject's key stays."""
    other = {"prompt": "Peter Olsen lives in", "subject": "Peter Olsen", "target_new": "Oslo"}
    again = REQUESTS[0] | {"target_new": "London"}
    factors = []
    for forgets in (False, True):
        model, tok = tiny_model("llama")
        hparams = make_hparams(method, tmp_path, v_num_grad_steps=2, **changes)
        for request in (REQUESTS[0], other):
            apply(model, tok, [request], hparams)
        (state,) = ModelSession.of(model).sequential_states.values()
        if forgets:  # the first edit's key, by hand
            state.edited[0] = []
            for layer in hparams.layers:
                state.buffer(layer).remove(0, 1)
            state.counts[0] = 0
        *_, record = apply(model, tok, [again], hparams)
        factors.append({layer: delta.key_factor for layer, delta in record.layers.items()})
        assert len(state.buffer(1)) == (2 if forgets else 3)
    for layer, factor in factors[0].items():
        torch.testing.assert_close(factor, factors[1][layer], rtol=1e-4, atol=1e-6)
