"""The ceiling of z*: put in by a hook of one's own, and the command with several settings."""

import csv
from types import SimpleNamespace

import pytest
import torch

from easyedit_neuron import data, resources
from easyedit_neuron.arch.load_model import load_model
from easyedit_neuron.arch.tokens import subject_last_index, target_token_ids, token_ids
from easyedit_neuron.arch.view import ModelView
from easyedit_neuron.edits.request import prepare
from easyedit_neuron.errors import HparamsError
from easyedit_neuron.locate_then_edit.compute_z import compute_z
from easyedit_neuron.locate_then_edit.context_templates import contexts_of
from easyedit_neuron.studies import target_values
from easyedit_neuron.studies.command import hparams_of
from easyedit_neuron.studies.target_values import Ceiling, measure_ceiling, parse_setting, rows_of


def test_rel_is_that_of_the_model_with_z_star_at_the_subject():
    model, tok, _ = load_model(SimpleNamespace(model_name="tiny-llama", device="cpu"))
    requests = data.load("tiny-world", size=3)
    hparams = hparams_of("MEMIT", "tiny-llama", None, v_num_grad_steps=4)
    ceiling = measure_ceiling(ModelView.of(model), tok, requests, hparams)
    layer = hparams.layers[-1]
    contexts = [context for group in contexts_of(model, tok, hparams) for context in group]
    for number, request in enumerate(prepare(requests)):
        (target,) = compute_z(ModelView.of(model), tok, [request], hparams, contexts, layer).targets
        ids, new = token_ids(tok, request.text), target_token_ids(tok, request.target_new)
        end = subject_last_index(tok, request.prompt, request.subject)

        def put(module, inputs, output, end=end, target=target):
            hidden = output[0] if isinstance(output, tuple) else output
            hidden[:, end] = target.value

        hook = model.model.layers[layer].register_forward_hook(put)
        with torch.no_grad():
            best = model(torch.tensor([ids + new])).logits[0, len(ids) - 1 : -1].argmax(-1).tolist()
        hook.remove()
        assert ceiling.rel[number] == sum(a == b for a, b in zip(best, new)) / len(new)
    assert ceiling.seconds > 0


def test_differences_are_paired_with_the_first_setting():
    first, second = (
        Ceiling("a", [1, 0, 1], [None, 0.5, 0], 1.0),
        Ceiling("b", [1, 1, 1], [None, 0.5, 0.5], 2.0),
    )
    rows = rows_of([first, second])
    assert rows[0]["rel_difference"] == "+0.000 [+0.000, +0.000]" and rows[1]["rel"] == 1
    assert rows[1]["gen"] == 0.5 and rows[1]["gen_difference"].startswith("+0.250 [")


def test_the_command_compares_settings(tmp_path):
    path = resources.data_dir("tiny-world") / "edits_knowedit.json"
    arguments = ["--edits", "4", "--data", str(path), "--out", str(tmp_path)]
    assert (
        target_values.main([*arguments, "--settings", "v_num_grad_steps=2", "v_num_grad_steps=2 v_noise=0.5"])
        == 0
    )
    with open(tmp_path / "target_values.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["setting"] for row in rows] == ["v_num_grad_steps=2", "v_num_grad_steps=2 v_noise=0.5"]
    assert target_values.main([*arguments, "--settings", "v_noize=1"]) == 2


def test_settings_are_fields():
    assert parse_setting("layers=[1,2] v_lr=0.1") == {"layers": [1, 2], "v_lr": 0.1}
    with pytest.raises(HparamsError, match="give fields"):
        parse_setting("layers")
