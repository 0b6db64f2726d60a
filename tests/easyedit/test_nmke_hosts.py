"""NMKE through both hosts: bit-identical weights and the same metrics, whatever the padding side; state follows restores."""
import dataclasses
import shutil

import pytest
import torch
from helpers.edit_cases import EXTRAS, PROMPTS, TARGETS, same, weights_of
from helpers.host_checks import batches_agree, undone_and_repeated
from helpers.tiny_models import CORPUS

from easyedit_neuron import NMKEHyperParams, data, resources
from easyedit_neuron.errors import RequestError
from easyedit_neuron.resources import ASSETS_DIR


@pytest.fixture(scope="session")
def setting(tmp_path_factory, llama_folder):
    """(hyperparameters, editor arguments): the shipped model and its world, or a random llama where it is not there yet."""
    stats = tmp_path_factory.mktemp("stats")
    if (ASSETS_DIR / "tiny-llama").is_dir():
        # a copy: EasyEdit goes by substrings of the whole path, and that of a checkout may hold any
        folder = tmp_path_factory.mktemp("shipped") / "tiny-llama"
        shutil.copytree(resources.model_path("tiny-llama"), folder)
        hparams = NMKEHyperParams.from_hparams("NMKE/tiny-llama").override({"model_name": str(folder), "stats_dir": str(stats)})
        requests = data.load("tiny-world", shape="knowedit", size=3)
        arguments = {"prompts": [r["prompt"] for r in requests], "target_new": [r["target_new"] for r in requests],
                     "subject": [r["subject"] for r in requests], "rephrase_prompts": [r["rephrase_prompt"] for r in requests]}
        for section in ("locality", "portability"):
            kinds = sorted({kind for r in requests for kind in r[section]})
            arguments[f"{section}_inputs"] = {
                kind: {name: [r[section].get(kind, {}).get(name) for r in requests] for name in ("prompt", "ground_truth")} for kind in kinds}
        return hparams, arguments
    text = stats / "text.txt"
    text.write_text("\n".join(CORPUS * 20))
    hparams = NMKEHyperParams(
        alg_name="NMKE", model_name=str(llama_folder), device="cpu", layers=[1, 2], v_num_grad_steps=5, L2=1.0,
        context_templates=["{}", "You know. {}"], mom2_dataset=str(text), mom2_n_samples=60, stats_dir=str(stats), nullspace_threshold=1.0)
    return hparams, dict(prompts=PROMPTS, target_new=TARGETS, **EXTRAS)


def test_sequential_edits(editors, setting):
    hparams, arguments = setting
    theirs, ours = editors(hparams)
    assert (theirs.tok.padding_side, ours.tok.padding_side) == ("left", "right")
    before = weights_of(ours.model)
    found = [e.edit(sequential_edit=True, verbose=False, **arguments) for e in (theirs, ours)]
    assert same(weights_of(found[0][1]), weights_of(found[1][1])) and same(found[0][2], found[1][2])
    assert found[0][0] == found[1][0]
    changed = [name for name, p in found[0][1].named_parameters() if not torch.equal(p, before[name])]
    assert changed == [f"model.layers.{layer}.mlp.down_proj.weight" for layer in hparams.layers]


def test_single_edits_repeated(editors, setting):
    hparams, arguments = setting
    undone_and_repeated(editors, hparams, arguments, times=3)


def test_batches(editors, setting):
    hparams, arguments = setting
    batches_agree(editors(dataclasses.replace(hparams, batch_size=2)), arguments)


def test_an_edit_that_was_undone_leaves_no_trace_under_either_padding_side(editors, setting):
    """An edit, undone by the host, then the same edit again sequentially: as if the first had never been."""
    hparams, arguments = setting
    theirs, ours = editors(hparams)
    ours.tok.padding_side = "left"
    one = {"prompts": arguments["prompts"][:1], "target_new": arguments["target_new"][:1], "subject": arguments["subject"][:1]}
    found = []
    for e in (theirs, ours):
        e.edit(verbose=False, **one)
        found.append(weights_of(e.edit(sequential_edit=True, verbose=False, **one)[1]))
    assert same(*found)


def test_normal_edit(editors, setting):
    """EasyEdit's normal_edit has no place for a subject, so the method refuses; the built-in one takes it."""
    hparams, arguments = setting
    plain = {"prompts": arguments["prompts"], "target_new": arguments["target_new"]}
    theirs, ours = editors(hparams)
    before = weights_of(ours.model)
    for e in (theirs, ours):
        with pytest.raises(RequestError, match="subject"):
            e.normal_edit(**plain)
    metrics, _, weights_copy = ours.normal_edit(**plain, subject=arguments["subject"])
    assert metrics is None and len(weights_copy) == len(hparams.layers)
    assert same(weights_of(theirs.model), before) and same(weights_of(ours.model), before)
