"""A guard in the built-in editor: it warns, ends the call, or takes edits back to the last good reading."""

import dataclasses

import pytest
import torch

from easyedit_neuron import Guard, LastingHyperParams, Limits
from easyedit_neuron.errors import HostError
from easyedit_neuron.host.base_editor import BaseEditor
from helpers.dummy_method import DummyHyperParams, register_dummy
from helpers.edit_cases import PROMPTS, TARGETS, same, weights_of
from helpers.tiny_models import CORPUS, tiny_model

FACTS = [{"prompt": "Anna Berg was born in", "ground_truth": "Paris"}]


class Breaking(Guard):
    """Says from so many edits on that a limit is broken: what canaries say of a random model proves
    nothing."""

    broken_from = 2

    def read(self, model, tok, edits, requests):
        reading = super().read(model, tok, edits, requests)
        breaches = ["perplexity 9.000, the limit is 1.1"] if edits >= self.broken_from else []
        self.readings[-1] = dataclasses.replace(reading, breaches=breaches)
        return self.readings[-1]


def editor(**changes):
    register_dummy()
    hparams = DummyHyperParams(**changes)
    hparams.model_name = tiny_model("llama")
    return BaseEditor.from_hparams(hparams)


def edited(count, call="edit", **changes):
    """Weights after the first edits alone."""
    e = editor(**changes)
    getattr(e, call)(PROMPTS[:count], TARGETS[:count], sequential_edit=True, verbose=False)
    return weights_of(e.model)


def test_what_it_reads():
    """Perplexity of the texts and Rel of the edits; within the limits nothing differs."""
    from easyedit_neuron.evaluation import perplexity, predict_targets, token_accuracy

    e = editor()
    before = perplexity(e.model, e.tok, CORPUS)
    guard = Guard(1, FACTS, CORPUS, Limits(None, None, None), action="roll_back")
    metrics, model, _ = e.edit(PROMPTS, TARGETS, sequential_edit=True, verbose=False, guard=guard)
    assert len(metrics) == 3 and same(weights_of(model), edited(3))
    assert [reading.edits for reading in guard.readings] == [1, 2, 3]
    assert guard.readings[-1].perplexity == pytest.approx(perplexity(model, e.tok, CORPUS) / before)
    accuracies = token_accuracy(predict_targets(model, e.tok, PROMPTS, TARGETS))
    assert guard.readings[-1].rel == pytest.approx(sum(accuracies) / 3)


@pytest.mark.parametrize("action, kept", [("warn", 3), ("stop", 2), ("roll_back", 1)])
def test_a_broken_limit(action, kept, caplog):
    e, guard = editor(), Breaking(1, FACTS, CORPUS, action=action)
    metrics, model, weights = e.edit(PROMPTS, TARGETS, sequential_edit=True, verbose=False, guard=guard)
    assert [metric["case_id"] for metric in metrics] == list(range(kept))
    assert same(weights_of(model), edited(kept)) and model is e.model
    assert "guard after edit 2: perplexity 9.000, the limit is 1.1" in caplog.text
    assert bool(weights) == (action != "roll_back")


def test_batches_go_back_to_the_last_good_reading():
    """Batches of one, asked every second edit: the readings are after two (good) and four (broken) edits."""
    prompts, targets = [*PROMPTS, PROMPTS[0]], [*TARGETS, "London"]
    e, guard = editor(batch_size=1), Breaking(2, FACTS, CORPUS, action="roll_back")
    guard.broken_from = 4
    metrics, model, weights = e.batch_edit(prompts, targets, sequential_edit=True, verbose=False, guard=guard)
    assert len(metrics) == 2 and weights == {}
    assert same(weights_of(model), edited(2, "batch_edit", batch_size=1))


def test_nothing_was_ever_good():
    e, records = editor(), ["the caller's"]
    before, guard = weights_of(e.model), Breaking(1, action="roll_back")
    guard.broken_from = 1
    metrics, model, _ = e.edit(
        PROMPTS, TARGETS, sequential_edit=True, verbose=False, guard=guard, records=records
    )
    assert metrics == [] and same(weights_of(model), before) and records == ["the caller's"]


def test_added_neurons_and_records_go_back_too(tmp_path):
    (tmp_path / "text.txt").write_text("\n".join(CORPUS), encoding="utf-8")

    def lasting(count, **options):
        fields = {"device": "cpu", "layers": [1], "capacity": 1, "v_num_grad_steps": 2}
        fields |= {"mom2_dataset": str(tmp_path / "text.txt"), "stats_dir": str(tmp_path / "stats")}
        hparams = LastingHyperParams(alg_name="Lasting", model_name="in memory", **fields)
        hparams.model_name = tiny_model("llama")
        e = BaseEditor.from_hparams(hparams)
        subjects = ["Anna Berg", "Peter Olsen", "Marie Lund"][:count]
        options |= {"subject": subjects, "sequential_edit": True, "verbose": False}
        return e, e.edit(PROMPTS[:count], TARGETS[:count], **options)[0]

    records, guard = [], Breaking(1, FACTS, CORPUS, action="roll_back")
    (first, _), (rolled, metrics) = lasting(1), lasting(3, guard=guard, records=records)
    assert len(metrics) == len(records) == 1
    inputs = first.tok(PROMPTS, return_tensors="pt", padding=True)
    torch.testing.assert_close(rolled.model(**inputs).logits, first.model(**inputs).logits)
    down = rolled.model.model.layers[1].mlp.down_proj.weight
    assert down.shape[1] == 50 and down[:, 48:].any(0).tolist() == [True, False]


def test_single_edits_have_nothing_to_guard():
    with pytest.raises(HostError, match="sequential_edit=True"):
        editor().edit(PROMPTS, TARGETS, verbose=False, guard=Guard(1))
