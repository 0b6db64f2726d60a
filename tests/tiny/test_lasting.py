"""Lasting: neurons that are added, what they read and write, and the way back."""

import copy
import dataclasses

import pytest
import torch
from transformers import AutoModelForCausalLM

from easyedit_neuron import LastingHyperParams, apply_lasting_to_model
from easyedit_neuron.arch.capture import Capture
from easyedit_neuron.arch.tokens import encode, subject_last_index
from easyedit_neuron.arch.view import ModelView
from easyedit_neuron.arch.widen import free_neurons
from easyedit_neuron.editlog import EditLog, diff, recording, redo, replay, squash, undo
from easyedit_neuron.edits.write import restore, write
from easyedit_neuron.errors import EditError, HparamsError, NeuronEditError, StateError
from easyedit_neuron.export import apply_sparse, export_merged, export_peft, export_sparse
from easyedit_neuron.lifelong.weights import EditedWeights
from easyedit_neuron.locate_then_edit.sequential_state import restore_session, saved_session
from easyedit_neuron.models.kne.kne_main import apply_kne_to_model
from easyedit_neuron.models.lasting import lasting_main
from easyedit_neuron.models.lasting.background import Background
from easyedit_neuron.models.lasting.firing import firings
from helpers.contract import fresh, parameters
from helpers.editing import CONTEXTS, REQUESTS, text_file
from helpers.kne_cases import kne_hparams
from helpers.tiny_models import MODEL_TYPES

IDS = torch.tensor([[1, 5, 9, 3]])
FUSED_FFN = ("phi3", "glm", "glm4")
"""Gate and up are one matrix."""


def settings(folder, **changes):
    fields = dict(
        alg_name="Lasting",
        model_name="in memory",
        device="cpu",
        layers=[1],
        v_num_grad_steps=3,
        v_lr=0.3,
        clamp_norm_factor=4.0,
        context_templates=CONTEXTS,
        mom2_dataset=text_file(folder),
        mom2_n_samples=20,
        stats_dir=str(folder / "stats"),
        name_templates=["{}"],
        capacity=4,
        text_share=0.9,
        name_share=0.05,
        sink_share=0.05,
    )
    return LastingHyperParams(**{**fields, **changes})


def apply(model, tok, requests, hparams, **options):
    records = []
    _, originals = apply_lasting_to_model(
        model, tok, requests, hparams, return_orig_weights=True, records=records, **options
    )
    return originals, records[0]


def hidden_at_subject(model, tok, request, layer):
    prompt = request["prompt"].replace(request["subject"], "{}")
    batch = encode(tok, [request["prompt"]])
    with torch.no_grad(), Capture(ModelView.of(model), [layer], want={"layer_out"}, stop_after=layer) as seen:
        model(**batch.inputs)
    return seen.layer_out[layer][0, subject_last_index(tok, prompt, request["subject"])]


def test_the_match_is_the_least_squares_fit():
    """Against the stacked problem: every background input and key is a row."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(40, 6, generator=generator, dtype=torch.float64) + 0.5
    keys, others = torch.randn(5, 6, generator=generator, dtype=torch.float64).split([3, 2])
    moment, mean = inputs.T @ inputs / 40, inputs.mean(0)
    background = Background(moment, mean, mean, ridge=0.1)
    ridge = 0.1 * float(moment.diagonal().mean())
    rows = [inputs / 40**0.5, keys * (2 / 3) ** 0.5, ridge**0.5 * torch.eye(6, dtype=torch.float64)]
    right = [torch.full((40,), -1 / 40**0.5), torch.full((3,), (2 / 3) ** 0.5), torch.zeros(6)]
    solution = torch.linalg.lstsq(torch.cat(rows), torch.cat(right).double()[:, None]).solution[:, 0]
    torch.testing.assert_close(background.match(keys, 2.0, others[:0], 0.5)[0], solution)
    torch.testing.assert_close(background.match(keys, 2.0, others, 0.0)[0], solution)
    rows.append(others * 0.25**0.5)
    right.append(torch.full((2,), -(0.25**0.5)))
    solution = torch.linalg.lstsq(torch.cat(rows), torch.cat(right).double()[:, None]).solution[:, 0]
    torch.testing.assert_close(background.match(keys, 2.0, others, 0.5)[0], solution)
    right = [value.abs() for value in right]
    solution = torch.linalg.lstsq(torch.cat(rows), torch.cat(right).double()[:, None]).solution[:, 0]
    torch.testing.assert_close(background.match(keys, 2.0, others, 0.5)[1], solution)


@pytest.mark.parametrize("kind", [*MODEL_TYPES, *FUSED_FFN])
def test_an_edit_adds_neurons_that_write_z_star_at_the_subject(kind, tmp_path):
    model, tok = fresh(kind)
    before, width = parameters(model), ModelView.of(model).d_ff
    hparams, request = settings(tmp_path), REQUESTS[0]
    clean = hidden_at_subject(model, tok, request, 1)
    targets = []
    search = lasting_main.compute_z
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            lasting_main, "compute_z", lambda *a, **k: targets.append(search(*a, **k)) or targets[-1]
        )
        originals, record = apply(model, tok, [request], hparams)
    (target,) = targets[0].targets
    torch.testing.assert_close(target.initial, clean, atol=1e-5, rtol=1e-5)
    if kind not in (
        "gemma2",
        "glm4",
    ):  # where a norm behind the FFN lets the change through in its direction alone
        torch.testing.assert_close(
            hidden_at_subject(model, tok, request, 1), target.value, atol=1e-4, rtol=1e-4
        )
    view, each = ModelView.of(model), 1 if "gate" in str(originals) else 2
    assert view.d_ff == width + 4 and len(free_neurons(view, 1)) == 4 - each
    after = parameters(model)
    for layer in range(4) if kind in FUSED_FFN else []:
        before |= {f"{layer} {name}": value for name, value in layer_parts(before, layer).items()}
        after |= {f"{layer} {name}": value for name, value in layer_parts(after, layer).items()}
    for name, value in before.items():
        part = after[name]
        for dim, size in enumerate(value.shape):
            part = part.narrow(dim, 0, size)
        assert "gate_up_proj" in name or torch.equal(part, value), f"{name}: no existing weight changes"
    assert record.info["neurons"] == [[1, list(range(width, width + each))]]
    restore(model, originals)
    fresh_logits = fresh(kind)[0](IDS).logits
    torch.testing.assert_close(model(IDS).logits, fresh_logits)
    apply(model, tok, [request], hparams)
    assert ModelView.of(model).d_ff == width + 4, "the neuron is free again and is used again"


def test_a_batch_holds_the_neurons_of_each_edit_alone(tmp_path):
    hparams = settings(tmp_path)
    model, tok = fresh("llama")
    _, batch = apply(model, tok, REQUESTS, hparams)
    for number, request in enumerate(REQUESTS):
        _, alone = apply(fresh("llama")[0], tok, [request], hparams)
        for name, delta in alone.units.items():
            actual = batch.units[name].vectors[number]
            torch.testing.assert_close(actual, delta.vectors[0], atol=1e-4, rtol=1e-3)


def test_a_second_fact_of_a_subject_is_searched_with_the_first(tmp_path, monkeypatch):
    model, tok = fresh("llama")
    hparams = settings(tmp_path, layers=[1, 2])
    seen = []
    search = lasting_main.compute_z
    monkeypatch.setattr(
        lasting_main, "compute_z", lambda *a, **k: seen.append(k["preserved"]) or search(*a, **k)
    )
    second = {"prompt": "Anna Berg lives in", "subject": "Anna Berg", "target_new": "Rome"}
    originals, first = apply(model, tok, [REQUESTS[0]], hparams)
    _, other = apply(model, tok, [second], hparams)
    assert seen[0] == [[]] and [(p.template, p.target) for p in seen[1][0]] == [("{} was born in", " Oslo")]
    assert first.info["neurons"][0][0] == other.info["neurons"][0][0], "in the same layer"
    twin, _ = fresh("llama")
    apply(twin, tok, [REQUESTS[0], second], hparams)
    assert [(p.template, p.target) for p in seen[3][0]] == [("{} was born in", " Oslo")]
    for name, value in model.state_dict().items():
        torch.testing.assert_close(twin.state_dict()[name], value, atol=1e-4, rtol=1e-3)
    # The first is taken out from outside: its fact is not preserved any more.
    layer, units = first.info["neurons"][0]
    ModelView.of(model).down_matrix(layer)[:, units] = 0
    apply(model, tok, [second | {"prompt": "Anna Berg works in"}], hparams)
    assert [p.target for p in seen[-1][0]] == [" Rome"]


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_which_neuron_answers(kind, tmp_path):
    """Shares are activations over those at the edited prompts; a silent neuron is not listed."""
    model, tok = fresh(kind)
    _, batch = apply(model, tok, REQUESTS[:2], settings(tmp_path))
    _, last = apply(model, tok, REQUESTS[2:], settings(tmp_path))
    prompts = [request["prompt"] for request in REQUESTS] + ["A word"]
    records = {7: batch, 9: last}
    neurons = [
        (number, request["subject"], units, response)
        for number, record in records.items()
        for request, (_, units), response in zip(
            record.requests, record.info["neurons"], record.info["responses"], strict=True
        )
    ]
    view = ModelView.of(model)
    for prompt, fired in zip(prompts, firings(model, tok, records, prompts), strict=True):
        with torch.no_grad(), Capture(view, [1], want={"key"}) as seen:
            model(**encode(tok, [prompt]).inputs)
        expected = []
        for number, subject, units, response in neurons:
            values = seen.key[1][0, :, units]
            shares = (values[:, 0] - (values[:, 1] if len(units) == 2 else 0)) / response
            if subject in prompt:
                end = subject_last_index(tok, prompt.replace(subject, "{}"), subject)
                assert float(shares[end]) == pytest.approx(1, abs=1e-3)
            place = int(shares.abs().argmax())
            if abs(shares[place]) >= 0.05:
                text = tok.decode([tok(prompt)["input_ids"][place]])
                expected.append((number, subject, place, text, pytest.approx(float(shares[place]), abs=1e-4)))
        expected.sort(key=lambda entry: -abs(entry[-1].expected))
        assert [dataclasses.astuple(firing) for firing in fired] == expected
    assert firings(model, tok, {}, prompts) == [[] for _ in prompts]


def test_a_failure_leaves_the_model_as_it_was(tmp_path, monkeypatch):
    model, tok = fresh("llama")
    before, width = parameters(model), model.config.intermediate_size

    def fails(*_):
        raise EditError("no")

    monkeypatch.setattr(lasting_main, "check_strength", fails)
    with pytest.raises(EditError):
        apply(model, tok, REQUESTS, settings(tmp_path))
    after = parameters(model)
    assert (
        all(torch.equal(before[name], after[name]) for name in before)
        and model.config.intermediate_size == width
    )


@pytest.mark.parametrize(
    "kind, source", [("llama", {}), ("llama", {"mom2_dataset": "self", "mom2_n_samples": None}), ("phi3", {})]
)
def test_another_process_goes_on_with_the_same_numbers(kind, source, tmp_path):
    """Also where the texts depend on the model's weights and on the size of its FFNs, which the first edit
    changed."""
    hparams = settings(tmp_path, **source, capacity=1)
    model, tok = fresh(kind)
    apply(model, tok, [REQUESTS[0]], hparams)
    saved, weights = copy.deepcopy(saved_session(model)), parameters(model)
    apply(model, tok, [REQUESTS[1]], hparams)
    other, _ = fresh(kind)
    restore_session(ModelView.of(other), tok, hparams, saved)
    restore(other, weights)
    apply(other, tok, [REQUESTS[1]], hparams)
    for name, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name


def test_an_edit_after_a_replay_is_the_one_that_would_have_followed(tmp_path):
    """The background is the unedited model's, and a second fact of a subject keeps the first."""
    source = {"mom2_dataset": "self", "mom2_n_samples": None}
    hparams = settings(tmp_path, **source, capacity=1, layers=[1, 2])
    second = {"prompt": "Anna Berg lives in", "subject": "Anna Berg", "target_new": "Rome"}
    model, tok = fresh("llama")
    with recording(model, tmp_path / "log") as log:
        apply(model, tok, [REQUESTS[0]], hparams)
    apply(model, tok, [second], hparams)
    other, _ = fresh("llama")
    assert replay(log, other, tok).exact
    apply(other, tok, [second], hparams)
    for name, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name


@pytest.mark.parametrize("kind", ["llama", *FUSED_FFN])
def test_log_undo_replay_and_export(kind, tmp_path):
    hparams = settings(tmp_path, capacity=1)  # grows with every edit
    model, tok = fresh(kind)
    with recording(model, tmp_path / "log") as log:
        for request in REQUESTS:
            apply(model, tok, [request], hparams)
    assert model.config.intermediate_size == 48 + 3
    edited = model(IDS).logits
    base, _ = fresh(kind)
    assert replay(log, base, tok).exact
    assert torch.equal(base(IDS).logits, edited)
    export_merged(log, fresh(kind)[0], None, tmp_path / "merged")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", attn_implementation="eager")
    assert torch.equal(loaded(IDS).logits, edited) and loaded.config.intermediate_size == 51
    export_sparse(log, fresh(kind)[0], tmp_path / "sparse")
    shared, _ = fresh(kind)
    apply_sparse(shared, tmp_path / "sparse")
    assert torch.equal(shared(IDS).logits, edited)
    apply_sparse(shared, tmp_path / "sparse", take_off=True)
    torch.testing.assert_close(shared(IDS).logits, fresh(kind)[0](IDS).logits)
    with pytest.raises(NeuronEditError, match="adds neurons"):
        export_peft(log, fresh(kind)[0], tmp_path / "peft")
    joined, _ = fresh(kind)
    assert replay(squash(log, tmp_path / "joined", fresh(kind)[0]), joined).exact
    torch.testing.assert_close(joined(IDS).logits, edited)
    first = diff(log, log, 1, 3)
    assert all(
        (part["neurons_a"], part["neurons_both"]) == (shared_rows(name), shared_rows(name))
        for name, part in first.parameters.items()
    )
    weights = parameters(model)
    undo(model, EditLog(tmp_path / "log"), 2)
    for name, value in layer_parts(weights, 1).items():
        value[49] = 0  # neurons 48, 49 and 50 are the three edits'
        assert torch.equal(layer_parts(parameters(model), 1)[name], value), f"{name}: dropped, exactly"
    assert free_neurons(ModelView.of(model), 1).tolist() == [49]
    redo(model, EditLog(tmp_path / "log"), 2)
    assert torch.equal(model(IDS).logits, edited)
    undo(model, EditLog(tmp_path / "log"), 1)
    if kind == "llama":  # in the others, the neurons of one subject answer to others too
        undo(model, EditLog(tmp_path / "log"), 2)
        without, _ = fresh(kind)
        apply(without, tok, [REQUESTS[2]], hparams)
        torch.testing.assert_close(model(IDS).logits, without(IDS).logits, atol=1e-4, rtol=1e-3)
    assert replay(EditLog(tmp_path / "log"), fresh(kind)[0]).exact


def layer_parts(weights, layer):
    """What the neurons of a layer read and write, [neurons, d_model] each: views of the model's weights."""
    mlp = {name.split(".mlp.")[1]: value for name, value in weights.items() if f".{layer}.mlp." in name}
    parts = {"down": mlp.pop("down_proj.weight").T}
    fused = mlp.pop("gate_up_proj.weight", None)
    if fused is not None:
        parts["gate"], parts["up"] = fused.chunk(2)
    return parts | mlp


def shared_rows(name):
    """Rows or columns of one neuron."""
    return 2 if "gate_up" in name else 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"threshold": 1.0}, r"'threshold': must be in \(-1, 1\)"),
        ({"saturation": 0.5}, "'saturation': must be greater than threshold"),
        ({"name_templates": ["no name"]}, "'name_templates'"),
        ({"capacity": 0}, "'capacity'"),
    ],
)
def test_bad_settings_are_named(change, words, tmp_path):
    with pytest.raises(HparamsError, match=words):
        settings(tmp_path, **change)


def test_settings_survive_their_file(tmp_path):
    hparams = settings(tmp_path)
    assert LastingHyperParams.from_dict(hparams.to_dict()) == dataclasses.replace(hparams)


@pytest.mark.parametrize("kind", ["llama", "phi3"])
def test_a_run_that_continues_knows_the_untouched_weights_in_their_new_size(kind, tmp_path):
    model, tok = fresh(kind)
    originals, _ = apply(model, tok, [REQUESTS[0]], settings(tmp_path))
    weights = EditedWeights(fresh(kind)[0])
    weights.load({name: model.get_parameter(name).detach().clone() for name in originals})
    assert weights.base.keys() == originals.keys()
    assert all(torch.equal(weights.base[name], value) for name, value in originals.items())
    assert all(torch.equal(value, model.get_parameter(name)) for name, value in weights.current().items())


def test_growth_between_edits_that_other_methods_made_of_a_fused_matrix(tmp_path):
    """KNE changes rows of gate and up, then neurons are added between them, then KNE's edit is taken out."""
    model, tok = fresh("phi3")
    name, untouched = "model.layers.1.mlp.gate_up_proj.weight", parameters(fresh("phi3")[0])
    hparams = kne_hparams(layers=[1], target_modules=["gate_proj", "up_proj"], share_of_parameters=0.05)
    with recording(model, tmp_path / "log") as log:
        apply_kne_to_model(model, tok, [REQUESTS[0]], hparams)
        changed = changed_rows(model, name, untouched[name])
        apply(model, tok, [REQUESTS[1]], settings(tmp_path, capacity=3))
    assert {part for part, _ in changed} == {0, 1}, "rows of both"
    again, _ = fresh("phi3")
    assert replay(log, again).exact and torch.equal(again(IDS).logits, model(IDS).logits)
    with_neuron = model.get_parameter(name).detach().clone()
    undo(model, log, 1)
    for part, (now, before) in enumerate(zip(model.get_parameter(name).chunk(2), untouched[name].chunk(2))):
        torch.testing.assert_close(now[:48], before, atol=1e-6, rtol=1e-6)
        assert torch.equal(now[48:], with_neuron.chunk(2)[part][48:]), "the added neuron stays"
    record = log[1]
    old = dataclasses.replace(
        record, units={key: dataclasses.replace(delta, parts=1) for key, delta in record.units.items()}
    )
    before = parameters(model)
    with pytest.raises(StateError, match="saved by an earlier version, before neurons were added"):
        write(ModelView.of(model), old.deltas)
    assert all(torch.equal(value, before[key]) for key, value in parameters(model).items())


def changed_rows(model, name, before):
    """(part, row) of the changed rows of a fused matrix."""
    halves = zip(model.get_parameter(name).detach().chunk(2), before.chunk(2))
    return [
        (part, row)
        for part, (now, then) in enumerate(halves)
        for row in (now != then).any(1).nonzero()[:, 0].tolist()
    ]
