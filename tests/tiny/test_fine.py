"""FiNE's neurons, losses and vectors against the algorithm spelled out, on every architecture, in float64."""

import copy

import pytest
import torch

from easyedit_neuron import apply_fine_to_model
from easyedit_neuron.arch import ModelView
from easyedit_neuron.edits.record import EditRecord
from easyedit_neuron.models.fine import train_vectors as train
from helpers.editing import REQUESTS, changed_tensors, put_back, snapshot
from helpers.fine_edits import (
    chosen,
    edit,
    fine,
    largest_relative_difference,
    summed,
    terms_of_edited,
    written,
)
from helpers.plain_fine import PlainFiNE
from helpers.tiny_models import MODEL_TYPES, tiny_model

TERMS = ("nll", "kl", "penalty", "norm")


@pytest.mark.parametrize("model_type", MODEL_TYPES)
@pytest.mark.parametrize(
    "changes", [{"epochs": 4}, {"add_eos": True, "last_layer": 0, "neuron_num": 3, "epochs": 4}]
)
def test_equals_the_algorithm_spelled_out(exact, model_type, changes):
    """Neurons, every term of the loss at every step's ends, and what is written, repeated neurons
    included."""
    model, tok = tiny_model(model_type, dtype=torch.float64)
    hparams = fine(**changes)
    plain = PlainFiNE(model, model_type, tok, REQUESTS[1], hparams)
    neurons = plain.neurons()
    vectors, terms = plain.train(neurons)
    record = edit(model, tok, hparams, REQUESTS[1:2])
    assert chosen(record) == neurons and len(set(neurons)) < len(neurons)
    info, rtol = (
        record.info["requests"][0],
        1e-5 if model_type == "gemma2" else 1e-7,
    )  # its norms say float, not float32
    for name, expected in zip(("first", "last"), (terms[0], terms[-1])):
        torch.testing.assert_close(
            torch.tensor([info[name][term] for term in TERMS], dtype=torch.float64),
            expected,
            rtol=rtol,
            atol=1e-9,
        )
    torch.testing.assert_close(
        torch.tensor(record.losses[0], dtype=torch.float64), terms.sum(1), rtol=rtol, atol=1e-9
    )
    assert info["stop"] == "epochs" and info["steps"] == hparams.epochs and terms[-1, 0] < terms[0, 0] - 0.5
    assert largest_relative_difference(written(record), summed(neurons, vectors)) < 100 * rtol


@pytest.mark.parametrize("model_type", ["gemma2", "gpt2", "granite", "opt", "falcon"])
def test_the_record_says_what_the_edited_model_does(exact, model_type):
    """The hooks of the training and the written columns are the same edit."""
    model, tok = tiny_model(model_type, dtype=torch.float64)
    clean = copy.deepcopy(model)
    hparams = fine()
    record = edit(model, tok, hparams, REQUESTS[:1])
    nll, kl, _, penalty = terms_of_edited(model, clean, tok, REQUESTS[0], hparams)
    last = record.info["requests"][0]["last"]
    assert [last["nll"], last["kl"], last["penalty"]] == pytest.approx(
        [float(nll.max()), float(kl.mean()), 10 * float(penalty.max())]
    )
    assert record.probability == pytest.approx([float(torch.exp(-nll.max()))])


STOPS = {"early_stop_prob": 0.01, "epochs": 8, "lr": 0.05, "alpha": 0.05, "gamma": 0.01}


@pytest.mark.parametrize(
    "model_type, changes",
    [
        ("llama", {}),
        ("llama", STOPS),
        ("llama", {**STOPS, "alpha": 0}),
        ("llama", {"random": True}),
        ("gemma2", STOPS),
        ("gptj", {**STOPS, "beta": 0}),
    ],
)
def test_a_batch_gives_what_single_requests_give(exact, model_type, changes):
    """All located and trained on the same weights, whoever stops early leaves; what they found is added
    together."""
    model, tok = tiny_model(model_type, dtype=torch.float64)
    single = [edit(copy.deepcopy(model), tok, fine(**changes), [request]) for request in REQUESTS]
    together = edit(copy.deepcopy(model), tok, fine(**changes))
    expected = {}
    for number, record in enumerate(single):
        info, alone = together.info["requests"][number], record.info["requests"][0]
        assert chosen(together, number) == chosen(record) and (info["stop"], info["steps"]) == (
            alone["stop"],
            alone["steps"],
        )
        rel = 1e-3 if model_type == "gemma2" else 1e-6  # its norms say float, not float32
        assert info["last"] == pytest.approx(alone["last"], rel=rel)
        assert together.losses[number] == pytest.approx(record.losses[0], rel=rel)
        for place, vector in written(record).items():
            expected[place] = expected.get(place, 0) + vector
    steps = [info["steps"] for info in together.info["requests"]]
    assert len(set(steps)) > 1 if "early_stop_prob" in changes else set(steps) == {6}
    assert (
        together.info["modified_parameters"]
        == 32 * len(expected)
        == 32 * sum(together.info["neurons_per_layer"].values())
    )
    halves = [edit(copy.deepcopy(model), tok, fine(train_batch_size=2))] if not changes else []
    for record in (together, *halves):
        assert largest_relative_difference(written(record), expected) < 10 * rel


@pytest.mark.parametrize("model_type", ["llama", "gpt2"])
def test_only_the_chosen_columns_change_and_everything_comes_back(model_type, tmp_path):
    model, tok = tiny_model(model_type)
    before, view = snapshot(model), ModelView.of(model)
    records = []
    edited, weights = apply_fine_to_model(
        model, tok, REQUESTS, fine(), return_orig_weights=True, records=records, train_ds=None
    )
    (record,) = records
    assert edited is model and sorted(changed_tensors(model, before)) == sorted(weights) == sorted(
        record.units
    )
    assert set(record.seconds) == {"locate", "train", "write"}
    for name, delta in record.units.items():
        old = before["tensors"][name].t() if model_type == "gpt2" else before["tensors"][name]
        torch.testing.assert_close(view.matrix(name) - old, delta.matrix(), rtol=1e-4, atol=1e-6)
        assert (
            torch.equal((view.matrix(name) != old).any(0).nonzero().flatten(), delta.units)
            and delta.axis == "input"
        )
    record.save(tmp_path / "edit.safetensors")
    again = EditRecord.load(tmp_path / "edit.safetensors")
    assert again.info == record.info and all(
        torch.equal(again.units[n].vectors, d.vectors) for n, d in record.units.items()
    )
    put_back(model, weights)
    assert changed_tensors(model, before) == []
    copied, _ = apply_fine_to_model(model, tok, REQUESTS, fine(), copy=True)
    assert (
        copied is not model
        and changed_tensors(model, before) == []
        and len(changed_tensors(copied, before)) == len(weights)
    )


def test_nothing_below_the_first_neuron_is_run_twice_and_only_what_is_in_the_loss_is_unembedded(monkeypatch):
    model, tok = tiny_model("llama")
    rows, ran, logits = [], [], train.ModelView.logits

    def counted(self, hidden, softcap=True):
        rows.append(len(hidden))
        return logits(self, hidden, softcap)

    monkeypatch.setattr(train.ModelView, "logits", counted)
    for number, layer in enumerate(model.model.layers):
        layer.mlp.register_forward_hook(lambda *_, n=number: ran.append(n))
    prompts, answers = (
        [len(tok(text, add_special_tokens=special)["input_ids"]) for text in texts]
        for special, texts in (
            (True, [r["prompt"] for r in REQUESTS]),
            (False, [" " + r["target_new"] for r in REQUESTS]),
        )
    )
    edit(model, tok, fine(layer=2))
    passes = 6 + 1
    assert [ran.count(layer) for layer in range(4)] == [
        2,
        2,
        2,
        1 + passes,
    ]  # located, and clean up to block 2
    preserved, read = sum(prompts) - 3, sum(answers)
    assert rows == [read] + passes * [preserved + read + 3]
    rows.clear()
    edit(model, tok, fine(layer=2, alpha=0, beta=0))
    assert rows == [read] + passes * [read]
