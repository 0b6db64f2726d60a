"""The files for EasyEdit's own methods on the shipped model: found by the method's name, values where the
classes want them."""

import pytest
import yaml

from easyedit_neuron import resources
from easyedit_neuron.statistics.text import enough_texts

FILES = sorted((resources.HPARAMS_DIR / "easyedit").glob("*/*.yaml"))
TINY = {"FT", "LoRA", "KN", "ROME", "MEMIT", "PMET", "AlphaEdit", "WISE", "GRACE"}
REAL = {"AlphaEdit", "MEMIT", "ROME", "FT", "GRACE", "WISE", "LoRA", "ULTRAEDIT", "EMMET", "SPHERE"}
LAYERS = {"tiny-llama": 5, "smollm2-135m-instruct": 30}


@pytest.mark.parametrize(("model", "methods"), [("tiny-llama", TINY), ("smollm2-135m-instruct", REAL)])
def test_every_baseline_has_one(model, methods):
    assert {path.parent.name for path in FILES if path.stem == model} == methods
    for name in methods:
        assert resources.easyedit_hparams(name, model) in FILES
    assert not resources.easyedit_hparams("GRACE", "gpt2-xl").is_file()


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_names_its_method_and_a_model_that_we_have(path):
    values = yaml.safe_load(path.read_text())
    named = values["alg_name"], values["model_name"], values["device"]
    assert named == (path.parent.name, path.stem, "cpu")
    layers = values.get("layers") or [
        int(name.replace("[", ".").replace("]", "").split(".")[2]) for name in values.get("inner_params", [])
    ]
    count = LAYERS[path.stem]
    assert all(0 <= layer < count for layer in layers) and values.get("v_loss_layer", count - 1) == count - 1


@pytest.mark.parametrize("model", LAYERS)
def test_same_solver_as_ours(model):
    """So that differences between the two implementations are not differences of settings."""
    for name, fields in (
        ("AlphaEdit", ("L2", "nullspace_threshold", "mom2_update_weight", "clamp_norm_factor")),
        ("MEMIT", ("mom2_update_weight", "clamp_norm_factor")),
        ("ROME", ("clamp_norm_factor", "mom2_adjustment")),
        ("FT", ("lr", "num_steps", "objective_optimization")),
    ):
        easyedit_fields = yaml.safe_load(resources.easyedit_hparams(name, model).read_text())
        builtin_fields = yaml.safe_load(resources.hparams_path(f"{name}/{model}").read_text())
        builtin_fields.setdefault(
            "mom2_n_samples", enough_texts(1536)
        )  # d_ff of the model that leaves it unset
        shared = (
            ("layers",)
            + fields
            + (
                ()
                if name == "FT"
                else ("v_lr", "v_num_grad_steps", "v_weight_decay", "kl_factor", "mom2_n_samples")
            )
        )
        assert {field: easyedit_fields[field] for field in shared} == {
            field: builtin_fields[field] for field in shared
        }
