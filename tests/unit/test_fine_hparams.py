"""Hyperparameters of FiNE: the release's files, ranges, layers."""

import pytest

from easyedit_neuron import FiNEHyperParams, get_method
from easyedit_neuron.errors import HparamsError

RELEASED = {  # the fields of the release's file for Llama-3-8B
    "alg_name": "FINE",
    "model_name": "./models/Meta-Llama-3-8B",
    "device": 0,
    "epochs": 50,
    "lr": "1e-3",
    "gamma": 0.1,
    "beta": 10,
    "alpha": 1,
    "neuron_num": 5,
    "early_stop_prob": 0.9,
    "last_layer": 3,
    "rewrite_module_tmp": "model.layers.{}.mlp.down_proj",
    "layer_module_tmp": "model.layers.{}",
    "mlp_module_tmp": "model.layers.{}.mlp",
    "attn_module_tmp": "model.layers.{}.self_attn",
    "ln_f_module": "model.norm",
    "lm_head_module": "lm_head",
    "model_parallel": True,
    "fp16": True,
}


def fine(**changes):
    return FiNEHyperParams(**{"alg_name": "FiNE", "model_name": "m", **changes})


def test_the_released_files_load_and_their_settings_are_the_defaults(tmp_path):
    path = tmp_path / "llama3-8b.yaml"
    path.write_text(
        "\n".join(
            f"{name}: {str(value).lower() if isinstance(value, bool) else value}"
            for name, value in RELEASED.items()
        )
    )
    loaded = FiNEHyperParams.from_hparams(path)
    assert (
        loaded.alg_name == "FiNE"
        and loaded.lr == 1e-3
        and loaded.module_overrides()["lm_head_module"] == "lm_head"
    )
    defaults = fine()
    assert all(
        getattr(loaded, name) == getattr(defaults, name)
        for name in (
            "epochs",
            "lr",
            "gamma",
            "beta",
            "alpha",
            "neuron_num",
            "early_stop_prob",
            "last_layer",
            "add_eos",
            "random",
            "layer",
            "seed",
        )
    )
    assert (
        get_method("fine") is get_method("FINE")
        and get_method("FiNE").batchable
        and get_method("FiNE").plugin
    )


def test_layers_that_are_searched():
    assert fine().searched_layers(32) == list(range(29)) and fine(last_layer=0).searched_layers(4) == [
        0,
        1,
        2,
        3,
    ]
    assert fine(layer=31).searched_layers(32) == [31]
    assert fine(layer_start=5, layer_end=30).searched_layers(32) == list(range(5, 29))
    assert fine(layer_end=7).searched_layers(32) == list(range(8))


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"neuron_num": 0}, "'neuron_num'"),
        ({"epochs": 0}, "'epochs'"),
        ({"lr": 0}, "'lr'"),
        ({"alpha": -1}, "'alpha'"),
        ({"last_layer": -1}, "'last_layer'"),
        ({"early_stop_prob": 1.0}, "'early_stop_prob': must be in .0, 1."),
        ({"layer": 3, "layer_end": 4}, "'layer'.*leave out layer_end"),
        ({"layer": -1}, "'layer'"),
        ({"layer_start": 4, "layer_end": 3}, "'layer_end'.*below layer_start 4"),
        ({"add_random": True}, "'add_random'"),
        ({"locate_on": "target"}, "'locate_on'"),
        ({"alg_name": "fine"}, "'alg_name'"),
    ],
)
def test_mistakes(changes, words):
    with pytest.raises(HparamsError, match=words):
        fine(**changes)
