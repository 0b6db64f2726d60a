"""NMKE's delta: zero outside of the mask, AlphaEdit's without one, and every choice of mask."""

import json

import pytest
import torch

from easyedit_neuron.arch.tokens import encode
from easyedit_neuron.arch.view import ModelView
from easyedit_neuron.attribution import neuron_scores
from easyedit_neuron.errors import HparamsError, MaskError
from easyedit_neuron.models.nmke import nmke_main
from easyedit_neuron.models.nmke.nmke_hparams import NMKEOptions
from easyedit_neuron.models.nmke.nmke_mask import nmke_mask
from helpers.editing import REQUESTS, apply, changed_tensors, make_hparams, snapshot
from helpers.tiny_models import tiny_model


def edit(folder, method="NMKE", requests=REQUESTS[:2], model_type="llama", **changes):
    model, tok = tiny_model(model_type)
    _, _, record = apply(
        model,
        tok,
        requests,
        make_hparams(method, folder, **{"v_num_grad_steps": 2, "nullspace_threshold": 2.0, **changes}),
    )
    return model, record


def test_without_a_mask_it_is_alphaedit_bit_for_bit(tmp_path):
    plain, _ = edit(tmp_path, "AlphaEdit")
    unmasked, record = edit(tmp_path, mask="none")
    assert all(torch.equal(p, q) for p, q in zip(plain.parameters(), unmasked.parameters()))
    assert record.layers[1].mask is None and record.layers[1].density == 1.0


@pytest.mark.parametrize("model_type", ["llama", "gpt2"])
@pytest.mark.parametrize("stage", ["post", "solve"])
@pytest.mark.parametrize(
    "path, preserve", [("alphaedit", "nullspace"), ("alphaedit", "covariance"), ("memit", "covariance")]
)
def test_masked_neurons_do_not_change(model_type, stage, path, preserve, tmp_path):
    clean, _ = tiny_model(model_type)
    model, record = edit(
        tmp_path, model_type=model_type, mask_stage=stage, path=path, solve_preserve=preserve
    )
    for layer, delta in record.layers.items():
        assert 0 < delta.density < 1 and delta.density == int(delta.mask.sum()) / 48
        assert not delta.matrix()[:, ~delta.mask].any() and delta.matrix()[:, delta.mask].any(0).all()
        views = [ModelView.of(m).down_matrix(layer) for m in (model, clean)]
        assert torch.equal(views[0][:, ~delta.mask], views[1][:, ~delta.mask])


def test_post_masks_the_finished_delta_of_the_first_layer(tmp_path):
    _, full = edit(tmp_path, mask="none")
    _, masked = edit(tmp_path)
    mask = masked.layers[1].mask
    assert torch.equal(masked.layers[1].key_factor, full.layers[1].key_factor * mask[:, None])
    assert torch.equal(masked.layers[1].value_factor, full.layers[1].value_factor)


def test_the_mask_is_that_of_every_context_of_every_request(tmp_path):
    _, record = edit(tmp_path)
    model, tok = tiny_model("llama")
    texts = [
        c.replace("{}", r["prompt"])
        for r in REQUESTS[:2]
        for c in ["{}", *make_hparams("NMKE", tmp_path).context_templates]
    ]
    scores = neuron_scores(ModelView.of(model), encode(tok, texts), [1, 2]).scores
    for layer in (1, 2):
        assert scores[layer].shape == (6, 48) and torch.equal(
            nmke_mask(scores[layer], NMKEOptions()).mask, record.layers[layer].mask
        )


def test_a_soft_mask_scales_rows(tmp_path, monkeypatch):
    seen = {}
    plain = nmke_main.nmke_masks
    monkeypatch.setattr(nmke_main, "nmke_masks", lambda *args: seen.setdefault("masks", plain(*args)))
    _, full = edit(tmp_path, mask="none")
    _, soft = edit(tmp_path, mask_values="soft")
    weight = seen["masks"][1].weight
    assert weight.min() >= 0 and weight.max() == 1 and len(weight.unique()) > 10
    assert torch.equal(soft.layers[1].key_factor, full.layers[1].key_factor * weight[:, None])


def test_random_neurons(tmp_path):
    _, record = edit(tmp_path, mask="random", mask_density=0.25)
    _, again = edit(tmp_path, mask="random", mask_density=0.25)
    _, other = edit(tmp_path, mask="random", mask_density=0.25, seed=1)
    masks = [[each.layers[layer].mask for layer in (1, 2)] for each in (record, again, other)]
    assert all(int(m.sum()) == 12 for pair in masks for m in pair)
    assert (
        torch.equal(masks[0][0], masks[1][0])
        and not torch.equal(masks[0][0], masks[2][0])
        and not torch.equal(*masks[0])
    )


def test_given_neurons(tmp_path):
    path = tmp_path / "neurons.json"
    path.write_text(json.dumps({"1": [0, 5, 47], "2": [3]}))
    for stage in ("post", "solve"):
        _, record = edit(tmp_path, mask="fixed", mask_file=str(path), mask_stage=stage)
        assert record.layers[1].mask.nonzero().flatten().tolist() == [0, 5, 47]
        assert record.layers[2].mask.nonzero().flatten().tolist() == [3]


@pytest.mark.parametrize(
    "content, error",
    [
        ("[1, 2]", HparamsError),
        ("{", HparamsError),
        ('{"1": [1]}', MaskError),
        ('{"1": [48], "2": [1]}', MaskError),
        (None, HparamsError),
    ],
)
def test_wrong_mask_files(content, error, tmp_path):
    path = tmp_path / "neurons.json"
    if content is not None:
        path.write_text(content)
    model, tok = tiny_model("llama")
    before = snapshot(model)
    with pytest.raises(error):
        apply(
            model,
            tok,
            REQUESTS[:1],
            make_hparams("NMKE", tmp_path, v_num_grad_steps=1, mask="fixed", mask_file=str(path)),
        )
    assert changed_tensors(model, before) == []


@pytest.mark.parametrize("kind", ["target_new", "ground_truth"])
def test_the_scored_token_decides_about_the_mask(kind, tmp_path):
    _, record = edit(tmp_path, attribution_target=kind, context_templates=None, context_length=0)
    model, tok = tiny_model("llama")
    first = [tok(" " + r[kind], add_special_tokens=False)["input_ids"][0] for r in REQUESTS[:2]]
    batch = encode(tok, [r["prompt"] for r in REQUESTS[:2]])
    scores = neuron_scores(ModelView.of(model), batch, [2], target=first).scores[2]
    own = neuron_scores(ModelView.of(model), batch, [2]).scores[2]
    assert torch.equal(record.layers[2].mask, nmke_mask(scores, NMKEOptions()).mask) and not torch.equal(
        nmke_mask(scores, NMKEOptions()).mask, nmke_mask(own, NMKEOptions()).mask
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"ratio": "linear"},
        {"ratio": "fixed", "general_ratio": 0.1, "specific_ratio": 0.2},
        {"score_form": "raw"},
        {"attribution": "psa"},
        {"attribution": "mpc"},
        {"neurons": "overlap"},
        {"neurons": "non_overlap"},
    ],
)
def test_options_edit(changes, tmp_path):
    _, record = edit(tmp_path, **changes)
    assert all(torch.isfinite(d.matrix()).all() and 0 < d.density < 1 for d in record.layers.values())


@pytest.mark.parametrize(
    "path, preserve", [("alphaedit", "nullspace"), ("alphaedit", "covariance"), ("memit", "covariance")]
)
@pytest.mark.parametrize("stage", ["post", "solve"])
def test_an_empty_mask_changes_nothing(path, preserve, stage, tmp_path, monkeypatch, caplog):
    """ties: exclude with tiny ratios selects nobody when all scores tie."""
    monkeypatch.setattr(
        "easyedit_neuron.models.nmke.nmke_mask.lps",
        lambda context, options: {layer: torch.zeros(3, 48) for layer in context.layers},
    )
    clean, _ = tiny_model("llama")
    model, record = edit(tmp_path, ties="exclude", mask_stage=stage, path=path, solve_preserve=preserve)
    assert all(
        d.density == 0 and d.residual_share == 0 and d.leakage == 0 and not d.matrix().any()
        for d in record.layers.values()
    )
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), clean.parameters()))
    assert "mask holds no neuron" in caplog.text


def test_masked_neurons_without_a_null_space_are_reported(tmp_path, caplog):
    """The covariance of few neurons has no small eigenvalue although that of all has."""
    path = tmp_path / "neurons.json"
    path.write_text(json.dumps({"1": [0, 5], "2": [3, 4]}))
    _, record = edit(
        tmp_path, mask="fixed", mask_file=str(path), mask_stage="solve", nullspace_threshold=0.12
    )
    assert "the 2 masked neurons has no eigenvalue" in caplog.text and not record.layers[1].matrix().any()


def test_attribution_in_mask_options_is_read(tmp_path):
    _, field = edit(tmp_path, attribution="mpc")
    _, option = edit(tmp_path, mask_options={"attribution": "mpc"})
    _, default = edit(tmp_path)
    for layer, delta in field.layers.items():
        assert torch.equal(option.layers[layer].mask, delta.mask)
    assert any(not torch.equal(default.layers[n].mask, delta.mask) for n, delta in field.layers.items())
