"""The files for EasyEdit's own methods on the shipped model: found by the method's name, values where the
classes want them."""

import pytest
import yaml

from easyedit_neuron import resources

FILES = sorted((resources.HPARAMS_DIR / "easyedit").glob("*/*.yaml"))
BASELINES = {"FT", "LoRA", "KN", "ROME", "MEMIT", "PMET", "AlphaEdit", "WISE", "GRACE"}


def test_every_baseline_has_one():
    assert {path.parent.name for path in FILES} == BASELINES
    for name in BASELINES:
        assert resources.easyedit_hparams(name, "tiny-llama") in FILES
    assert not resources.easyedit_hparams("GRACE", "gpt2-xl").is_file()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_names_its_method_and_the_shipped_model(path):
    values = yaml.safe_load(path.read_text())
    assert (values["alg_name"], values["model_name"], values["device"]) == (
        path.parent.name,
        "tiny-llama",
        "cpu",
    )
    layers = values.get("layers") or [
        int(name.split("[")[1].split("]")[0]) for name in values.get("inner_params", [])
    ]
    assert all(0 <= layer < 5 for layer in layers) and values.get("v_loss_layer", 4) == 4


def test_same_solver_as_ours():
    """So that differences between the two implementations are not differences of settings."""
    for name, fields in (
        ("AlphaEdit", ("L2", "nullspace_threshold", "mom2_update_weight", "clamp_norm_factor")),
        ("MEMIT", ("mom2_update_weight", "clamp_norm_factor")),
        ("ROME", ("clamp_norm_factor", "mom2_adjustment")),
        ("FT", ("lr", "num_steps", "objective_optimization")),
    ):
        easyedit_fields = yaml.safe_load(resources.easyedit_hparams(name, "tiny-llama").read_text())
        builtin_fields = yaml.safe_load(resources.hparams_path(f"{name}/tiny-llama").read_text())
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
