"""The shipped settings on the shipped model through EasyEdit's editor and the built-in one: the same weights
and metrics."""

import shutil

import pytest

from easyedit_neuron import data, resources
from easyedit_neuron.registry import get_method
from helpers.edit_cases import same, weights_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A copy of the model: EasyEdit goes by words in the whole path, and that of a checkout may hold any."""
    place = tmp_path_factory.mktemp("shipped") / "tiny-llama"
    shutil.copytree(resources.model_path("tiny-llama"), place)
    return place


@pytest.mark.parametrize("method", ["NMKE", "PNKE", "FiNE", "KNE"])
def test_an_edit_that_stays(editors, method, folder):
    changes = {"model_name": str(folder)}
    if method in ("NMKE", "PNKE"):
        changes |= {"stats_dir": str(folder.parent / "stats"), "mom2_n_samples": 300, "context_length": 6}
    requests = data.load("tiny-world", shape="knowedit", size=1)
    names = {
        "prompts": "prompt",
        "target_new": "target_new",
        "subject": "subject",
        "rephrase_prompts": "rephrase_prompt",
    }
    arguments = {name: [request[key] for request in requests] for name, key in names.items()}
    pair = editors(get_method(method).load_hparams().from_hparams(f"{method}/tiny-llama").override(changes))
    before = weights_of(pair[1].model)
    results = [e.edit(sequential_edit=True, verbose=False, **arguments) for e in pair]
    assert results[0][0] == results[1][0] and same(results[0][2], results[1][2])
    assert same(*(weights_of(edited) for _, edited, _ in results)) and not same(
        weights_of(results[0][1]), before
    )
