"""Every hyperparameter file that ships loads with the class of its method."""

import pytest

from easyedit_neuron import resources
from easyedit_neuron.hyperparameters.base import EASYEDIT_FIELDS, read_hparams
from easyedit_neuron.registry import get_method

MODELS = {
    "smollm2-135m-instruct",
    "tiny-llama",
    "llama2-7b",
    "llama3-8b-instruct",
    "llama3.1-8b-instruct",
    "llama3.2-1b-instruct",
    "gpt2-xl",
    "gpt-j-6B",
    "qwen2.5-7b",
    "qwen2.5-7b-instruct",
    "mistral-7b",
}
SHIPPED = resources.shipped_hparams()


@pytest.mark.parametrize("name", SHIPPED)
def test_loads(name):
    method, model = name.split("/")
    hparams = get_method(method).load_hparams().from_hparams(name)
    assert hparams.alg_name == method
    for field in EASYEDIT_FIELDS:
        assert hasattr(hparams, field)
    text = resources.hparams_path(name).read_text()
    if model in (*resources.SHIPPED_MODELS, *resources.FETCHED_MODELS):
        assert hparams.model_name == resources.model_path(model) and hparams.device == "cpu"
        assert "unverified" not in text
    else:
        assert "unverified" in text and hparams.model_name == resources.CHECKPOINTS[model]


@pytest.mark.parametrize("method", ["NMKE", "AlphaEdit", "FT"])
def test_every_model_is_covered(method):
    assert {name.split("/")[1] for name in SHIPPED if name.startswith(f"{method}/")} == MODELS


@pytest.mark.parametrize("model", sorted(MODELS))
def test_nmke_differs_from_alphaedit_by_its_mask_only(model):
    nmke, alphaedit = (
        read_hparams(resources.hparams_path(f"{method}/{model}")) for method in ("NMKE", "AlphaEdit")
    )
    assert {name: value for name, value in nmke.items() if name in alphaedit and name != "alg_name"} == {
        name: value for name, value in alphaedit.items() if name != "alg_name"
    }
