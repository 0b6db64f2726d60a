"""KNE's training against a plain loop on whole weights, and edits from end to end."""

import pytest
import torch

from easyedit_neuron.arch import ModelView, projection
from easyedit_neuron.attribution import target_tokens
from easyedit_neuron.edits import session
from easyedit_neuron.edits.record import EditRecord
from easyedit_neuron.edits.request import prepare
from easyedit_neuron.edits.write import write
from easyedit_neuron.errors import ArchitectureError, EditError, RequestError
from easyedit_neuron.models.kne.kne_main import apply_kne_to_model
from easyedit_neuron.models.kne.train_ensemble import train, unit_deltas
from helpers.editing import REQUESTS, changed_tensors, put_back, snapshot, target_nll
from helpers.kne_cases import attributions, kne_hparams, plain_training
from helpers.tiny_models import FUSED_ATTENTION, MODEL_TYPES, tiny_model


def edit(model, tok, requests, hparams, **options):
    records = []
    edited, weights = apply_kne_to_model(model, tok, requests, hparams, records=records, **options)
    return edited, weights, records[0]


MEMBERS = [
    (1, "down_proj", [0, 3, 31]),
    (1, "q_proj", [2, 9, 30]),
    (1, "v_proj", [9, 12]),
    (3, "up_proj", [5]),
]


@pytest.mark.parametrize(
    "model_type, changes",
    [
        ("llama", {}),
        ("gpt2", {}),
        ("gpt_neox", {}),
        ("gpt2", {"neuron_axis": "input"}),
        ("gpt_neox", {"neuron_axis": "input"}),
        ("qwen2", {"kl_factor": 0.5}),
        ("gptj", {"kl_factor": 0.5, "kl_direction": "after_before"}),
        ("gemma2", {"kl_factor": 0.5, "kl_on": "neutral"}),
        ("mistral", {"train_batch_size": 1, "kl_factor": 0.5}),
    ],
)
def test_training_equals_a_plain_loop(model_type, changes, exact):
    model, tok = tiny_model(model_type, dtype=torch.float64)
    view, hparams, requests = (
        ModelView.of(model),
        kne_hparams(alpha=1.5, num_steps=5, **changes),
        REQUESTS[:2],
    )
    members = [(projection(view, layer, name), torch.tensor(units)) for layer, name, units in MEMBERS]
    members = [(site, units[units < site.size(hparams.neuron_axis)[0]]) for site, units in members]
    plain = [
        (
            site.parameter,
            site.rows[units] if hparams.neuron_axis == "output" else units,
            site.rows,
            not view.matrix(site.parameter).is_contiguous(),
        )
        for site, units in members
    ]
    expected, losses = plain_training(model, tok, requests, plain, hparams)
    before = snapshot(model)
    fit = train(view, tok, prepare(requests), members, hparams)
    assert changed_tensors(model, before) == []
    deltas = unit_deltas(view, members, fit.vectors, hparams.neuron_axis)
    assert (
        fit.losses["loss"] == pytest.approx(losses, rel=1e-6)
        and losses[-1] < losses[0]
        and fit.stop == "steps"
    )
    assert deltas.keys() == expected.keys()
    for name, delta in deltas.items():
        change = delta.matrix() if view.matrix(name).is_contiguous() else delta.matrix().T
        torch.testing.assert_close(change, expected[name], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_an_edit_moves_the_ensemble_and_nothing_else(model_type):
    model, tok = tiny_model(model_type)
    before, plain = snapshot(model), target_nll(model, tok, REQUESTS[0])
    hparams = kne_hparams(target_modules=["down_proj", "q_proj"])
    edited, weights, record = edit(model, tok, REQUESTS[:1], hparams, return_orig_weights=True)
    assert edited is model and set(changed_tensors(model, before)) == set(record.units) == set(weights)
    assert target_nll(model, tok, REQUESTS[0]) == pytest.approx(record.info["losses"]["nll"][-1], abs=1e-4)
    assert record.losses[0][-1] < plain
    moved = sum(len(delta.units) * delta.vectors.shape[1] for delta in record.units.values())
    total = sum(p.numel() for p in model.parameters())
    assert 0.01 < moved / total <= 0.02
    assert record.info["parameters_moved"] == moved and record.info["share_moved"] == moved / total
    assert sum(record.info["neurons"].values()) == sum(len(d.units) for d in record.units.values())
    view = ModelView.of(model)
    for name, delta in record.units.items():
        change = view.matrix(name) - ModelView.of(tiny_model(model_type)[0]).matrix(name)
        assert change.abs().sum(1).nonzero()[:, 0].tolist() == delta.units.tolist()
    assert (
        {"locate", "train"} <= set(record.seconds)
        and record.info["stop"] == "steps"
        and record.info["steps"] == 8
    )
    put_back(model, weights)
    assert changed_tensors(model, before) == []


@pytest.mark.parametrize("model_type, form", FUSED_ATTENTION)
def test_an_edit_of_fused_attention(model_type, form):
    model, tok = tiny_model(model_type, seed=2, **form)
    before, plain = snapshot(model), target_nll(model, tok, REQUESTS[0])
    names = ["q_proj", "k_proj", "v_proj"]
    hparams = kne_hparams(target_modules=names, lr=0.02)
    _, weights, record = edit(model, tok, REQUESTS[:1], hparams, return_orig_weights=True)
    assert target_nll(model, tok, REQUESTS[0]) < plain
    view = ModelView.of(model)
    fused = {projection(view, layer, name).parameter for layer in hparams.layers for name in names}
    assert len(fused) == 2 and set(changed_tensors(model, before)) == set(weights) <= fused
    assert {name for delta in record.units.values() for name in delta.info["neurons"]} <= set(names)
    put_back(model, weights)
    assert changed_tensors(model, before) == []


def test_the_ensemble_is_that_of_the_scores():
    model, tok = tiny_model("llama")
    view, hparams = ModelView.of(model), kne_hparams(layers=[], p=0.1, locate_on="ground_truth")
    sites = [projection(view, layer, "down_proj") for layer in range(4)]
    targets = target_tokens(
        tok, [r["prompt"] for r in REQUESTS[:2]], [r["ground_truth"] for r in REQUESTS[:2]]
    )
    scores = torch.cat(list(attributions(view, targets, sites, attribution_steps=5).values()))
    _, _, record = edit(model, tok, REQUESTS[:2], hparams)
    chosen = torch.cat(
        [
            torch.zeros(32, dtype=torch.bool).index_fill(0, record.units[site.parameter].units, True)
            if site.parameter in record.units
            else torch.zeros(32, dtype=torch.bool)
            for site in sites
        ]
    )
    assert int(chosen.sum()) == 13 and torch.equal(chosen, scores >= scores.sort().values[-13])


def test_columns_and_a_saved_record(tmp_path):
    model, tok = tiny_model("gpt2")
    hparams = kne_hparams(neuron_axis="input", target_modules=["q_proj", "v_proj", "up_proj"])
    _, _, record = edit(model, tok, REQUESTS[:1], hparams)
    record.save(tmp_path / "edit.safetensors")
    twin, _ = tiny_model("gpt2")
    write(ModelView.of(twin), EditRecord.load(tmp_path / "edit.safetensors").deltas)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), twin.parameters()))
    fused = record.units["transformer.h.1.attn.c_attn.weight"]
    assert (
        fused.axis == "input" and not fused.vectors[:, 32:64].any() and fused.vectors[:, :32].any()
    )  # k's rows stay


def test_a_batch_and_a_sequence_of_edits():
    model, tok = tiny_model("llama")
    batch, _, record = edit(model, tok, REQUESTS, kne_hparams(num_steps=20), copy=True)
    assert batch is not model and len(record.probability) == 3 and len(record.losses) == 1
    assert sum(target_nll(batch, tok, r) for r in REQUESTS) < sum(target_nll(model, tok, r) for r in REQUESTS)
    start = {n: p.detach().clone() for n, p in model.named_parameters()}
    deltas = []
    for request in REQUESTS:
        deltas.append(edit(model, tok, [request], kne_hparams())[2].deltas)
    for name, parameter in model.named_parameters():
        for edit_deltas in deltas:
            start[name] = start[name] + (edit_deltas[name].matrix() if name in edit_deltas else 0.0)
        torch.testing.assert_close(parameter.detach(), start[name])


def test_stopping():
    model, tok = tiny_model("llama")
    _, _, record = edit(
        model,
        tok,
        REQUESTS[:1],
        kne_hparams(num_steps=100, lr=0.2, layers=[], stop_probability=0.5),
        copy=True,
    )
    assert record.info["stop"] == "probability" and record.info["steps"] < 100
    assert record.probability[0] >= 0.5 and len(record.info["losses"]["nll"]) == record.info["steps"] + 1
    twin, _, again = edit(
        model, tok, REQUESTS[:1], kne_hparams(stop_probability=1e-9), copy=True
    )  # said already: nothing to do
    assert again.info["steps"] == 0 and all(
        torch.equal(p, q) for p, q in zip(model.parameters(), twin.parameters())
    )


@pytest.mark.parametrize(
    "changes, error, words",
    [
        (
            {"lr": 1e30},
            EditError,
            r"request 0 .'Anna Berg was born in'.: the loss is not finite at step \d.*Lower lr",
        ),
        (
            {"kl_factor": 1e6, "num_steps": 2},
            EditError,
            "training did not lower the loss, which went from .* in 2 steps",
        ),
        ({"target_modules": ["gate_proj"]}, ArchitectureError, "no projection 'gate_proj'"),
        ({"layers": [4]}, ArchitectureError, "layer 4 does not"),
    ],
)
def test_a_failed_edit_leaves_the_model(changes, error, words):
    model, tok = tiny_model("gpt2")
    before = snapshot(model)
    with pytest.raises(error, match=words):
        edit(model, tok, REQUESTS[:1], kne_hparams(**changes))
    assert changed_tensors(model, before) == [] and session.last_record(model) is None


def test_a_missing_ground_truth():
    model, tok = tiny_model("llama")
    bare = {name: value for name, value in REQUESTS[1].items() if name != "ground_truth"}
    with pytest.raises(RequestError, match="request 1: field 'ground_truth' is missing"):
        edit(model, tok, [REQUESTS[0], bare], kne_hparams(locate_on="ground_truth"))


def test_half_precision_and_a_frozen_model():
    model, tok = tiny_model("llama", dtype=torch.bfloat16)
    model.requires_grad_(False)
    before = snapshot(model)
    with torch.no_grad():
        _, _, record = edit(model, tok, REQUESTS[:1], kne_hparams(lr=0.2))
    assert set(changed_tensors(model, before)) == set(record.units)
    assert all(d.vectors.dtype == torch.float32 for d in record.units.values())
