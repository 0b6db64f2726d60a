"""PNKE with its shipped settings, and by Adam, through EasyEdit's editor and the built-in one: the same weights and metrics."""

import dataclasses
import shutil

import pytest
from helpers.edit_cases import same, weights_of
from helpers.host_checks import batches_agree

from easyedit_neuron import PNKEHyperParams, data, resources


@pytest.fixture(scope="module")
def hparams(tmp_path_factory):
    # a copy: EasyEdit goes by substrings of the whole path, and that of a checkout may hold any
    folder = tmp_path_factory.mktemp("shipped") / "tiny-llama"
    shutil.copytree(resources.model_path("tiny-llama"), folder)
    changes = {"model_name": str(folder), "stats_dir": str(tmp_path_factory.mktemp("stats")), "mom2_n_samples": 500, "context_length": 6}
    return PNKEHyperParams.from_hparams("PNKE/tiny-llama").override(changes)


@pytest.fixture(scope="module")
def arguments():
    requests = data.load("tiny-world", shape="knowedit", size=2)
    names = {"prompts": "prompt", "target_new": "target_new", "subject": "subject", "rephrase_prompts": "rephrase_prompt"}
    return {**{name: [request[key] for request in requests] for name, key in names.items()}, "verbose": False}


def test_single_and_sequential_edits(editors, hparams, arguments):
    pair = editors(hparams)
    before = weights_of(pair[1].model)
    single = [e.edit(**arguments) for e in pair]
    assert single[0][0] == single[1][0] and all(same(weights_of(edited), before) for _, edited, _ in single)
    found = [e.edit(sequential_edit=True, **arguments) for e in pair]
    weights = [weights_of(edited) for _, edited, _ in found]
    assert found[0][0] == found[1][0] and same(*weights)
    assert [name for name, value in weights[0].items() if not same({name: value}, {name: before[name]})] == [
        "model.layers.1.mlp.down_proj.weight"]


def test_batches_by_adam(editors, hparams, arguments):
    pair = editors(dataclasses.replace(hparams, batch_size=2, solver="adam", adam_steps=20))
    before = weights_of(pair[1].model)
    weights = batches_agree(pair, arguments)
    changed = [name for name, value in weights.items() if not same({name: value}, {name: before[name]})]
    assert changed == [f"model.layers.1.mlp.{part}_proj.weight" for part in ("gate", "up", "down")]
