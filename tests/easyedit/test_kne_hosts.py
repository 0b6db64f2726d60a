"""KNE through both hosts: bit-identical weights and the same metrics, restored and sequential, one by one and in batches."""
import dataclasses

import pytest
from helpers.edit_cases import EXTRAS, PROMPTS, TARGETS, same, weights_of
from helpers.host_checks import batches_agree, undone_and_repeated

from easyedit_neuron import KNEHyperParams

ARGUMENTS = dict(prompts=PROMPTS, target_new=TARGETS, **EXTRAS)


@pytest.fixture
def hparams(llama_folder, tmp_path):
    return KNEHyperParams(alg_name="KNE", model_name=str(llama_folder), device="cpu", layers=[1, 2], attribution_steps=4, num_steps=5,
                          lr=0.05, share_of_parameters=0.05, target_modules=["down_proj", "q_proj"], stats_dir=str(tmp_path / "stats"))


def changed(model, before):
    now = weights_of(model)
    return {name for name in now if not (now[name] == before[name]).all()}


@pytest.mark.parametrize("shared", [False, True])
def test_sequential_edits(editors, hparams, shared, tmp_path):
    if shared:
        data = tmp_path / "edits.json"
        data.write_text('[{"prompt": "Oslo is the capital of", "subject": "Oslo", "target_new": "Rome", "ground_truth": "Norway"}]')
        hparams = dataclasses.replace(hparams, localize="shared", localization_data=str(data))
    theirs, ours = editors(hparams)
    before = weights_of(ours.model)
    found = [e.edit(sequential_edit=True, verbose=False, **ARGUMENTS) for e in (theirs, ours)]
    assert same(weights_of(found[0][1]), weights_of(found[1][1])) and same(found[0][2], found[1][2])
    assert found[0][0] == found[1][0]
    names = {f"model.layers.{layer}.{part}.weight" for layer in (1, 2) for part in ("mlp.down_proj", "self_attn.q_proj")}
    moved = changed(found[0][1], before)
    assert moved and moved <= names


def test_single_edits_are_undone_and_repeat(editors, hparams):
    undone_and_repeated(editors, hparams, ARGUMENTS, times=2)


def test_batches(editors, hparams):
    batches_agree(editors(dataclasses.replace(hparams, batch_size=2)), ARGUMENTS)
