"""Lasting through the real EasyEdit, which puts weights back that have grown."""

import torch

from easyedit_neuron.arch.view import ModelView
from easyedit_neuron.arch.widen import free_neurons
from helpers.contract import settings
from helpers.editing import REQUESTS

IDS = torch.tensor([[1, 5, 9, 3]])
ARGUMENTS = {
    "prompts": [request["prompt"] for request in REQUESTS],
    "target_new": [request["target_new"] for request in REQUESTS],
    "subject": [request["subject"] for request in REQUESTS],
    "ground_truth": [request["ground_truth"] for request in REQUESTS],
    "verbose": False,
}


def test_single_and_sequential_edits_under_both_hosts(editors, llama_folder, tmp_path):
    theirs, builtin = editors(settings("Lasting", tmp_path, model_name=str(llama_folder)))
    before = theirs.model(IDS).logits
    metrics, _, _ = theirs.edit(**ARGUMENTS)
    expected, _, _ = builtin.edit(**ARGUMENTS)
    assert [m["post"]["rewrite_acc"] for m in metrics] == [m["post"]["rewrite_acc"] for m in expected]
    torch.testing.assert_close(theirs.model(IDS).logits, before)
    assert len(free_neurons(ModelView.of(theirs.model), 1)) == 8, (
        "grown once, and free again after every edit"
    )
    theirs.edit(sequential_edit=True, **ARGUMENTS)
    builtin.edit(sequential_edit=True, **ARGUMENTS)
    assert len(free_neurons(ModelView.of(theirs.model), 1)) == 5
    for name, value in builtin.model.state_dict().items():
        torch.testing.assert_close(theirs.model.state_dict()[name], value)
