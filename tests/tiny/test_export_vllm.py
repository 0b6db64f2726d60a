"""Adapters against the rules of vLLM's loader, which read the two files and nothing else."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from easyedit_neuron.export import export_peft
from easyedit_neuron.export.vllm import RANKS, vllm_check
from helpers.exports import plain_changes, run_of


def adapter(folder, run="NMKE", kind="llama"):
    base, _, _, records = run_of(run, kind, folder)
    return export_peft(records, base, folder / "adapter"), base, records


@pytest.mark.parametrize("run", ["NMKE", "FiNE", "KNE-attention"])
@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2"])
def test_what_vllm_would_compute(run, kind, tmp_path):
    """Every module by its name, scaled by ``lora_alpha / r``: the sum of the edits. Patterns are not read,
    as older versions do not read them."""
    if run == "KNE-attention" and kind == "gpt2":
        pytest.skip("GPT-2 has one matrix for queries, keys and values")
    exported, base, records = adapter(tmp_path, run, kind)
    check = vllm_check(exported.folder)
    assert check.problems == [] and check.to_dict() == exported.side_file["vllm"]
    config = json.loads((exported.folder / "adapter_config.json").read_text())
    assert (
        config["r"]
        == max(p["rank"] for p in exported.side_file["parameters"].values())
        <= check.max_lora_rank
    )
    assert check.max_lora_rank in RANKS
    changes = plain_changes(records)
    tensors = load_file(exported.folder / "adapter_model.safetensors")
    modules = {name.removeprefix("base_model.model.").rpartition(".lora_")[0] for name in tensors}
    assert {f"{module}.weight" for module in modules} == set(changes)
    for module in modules:
        a, b = (tensors[f"base_model.model.{module}.lora_{side}.weight"].double() for side in "AB")
        assert len(a) <= config["r"]
        change = config["lora_alpha"] / config["r"] * b @ a
        torch.testing.assert_close(
            change, changes[f"{module}.weight"], rtol=0, atol=2e-7 * float(change.abs().max())
        )


def test_more_edits_than_the_largest_rank(tmp_path):
    exported, _, _ = adapter(tmp_path)
    file = exported.folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"r": 600, "lora_alpha": 600}))
    check = vllm_check(exported.folder)
    assert check.max_lora_rank is None and "rank 600 is more than 512" in check.problems[0]


@pytest.mark.parametrize(
    "values, match",
    [
        ({"bias": "all"}, "biases change"),
        ({"lora_bias": True}, "'lora_bias' is set"),
        ({"use_dora": True}, "'use_dora' is set"),
        ({"modules_to_save": ["lm_head"]}, "'modules_to_save' is set"),
        ({"lora_alpha": 64}, "scaled differently"),
        ({"target_modules": ["model.layers.0.mlp.down_proj"]}, "are of different modules"),
        ({"r": None}, "has no 'r'"),
    ],
)
def test_refused(values, match, tmp_path):
    """``lora_alpha`` without its pattern: FiNE's modules have different ranks."""
    exported, _, _ = adapter(tmp_path, "FiNE")
    file = exported.folder / "adapter_config.json"
    config = json.loads(file.read_text()) | values
    file.write_text(json.dumps({name: value for name, value in config.items() if value is not None}))
    assert match in " ".join(vllm_check(exported.folder).problems)


def test_damaged_tensors(tmp_path):
    exported, _, _ = adapter(tmp_path)
    file = exported.folder / "adapter_model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if name.endswith("lora_A.weight"))
    cases = {
        "is of rank 1": tensors | {name: tensors[name][:1].clone()},
        "has one of two matrices": {key: value for key, value in tensors.items() if key != name},
        "is no matrix of a LoRA": tensors | {"base_model.model.lm_head.weight": torch.zeros(2, 2)},
        "is of dtype F64": {key: value.double() for key, value in tensors.items()},
    }
    for match, changed in cases.items():
        save_file(changed, file)
        assert match in " ".join(vllm_check(exported.folder).problems), match


def test_changed_biases(tmp_path):
    """PNKE's Adam on GPT-2 changes biases, which vLLM does not take."""
    exported, _, _ = adapter(tmp_path, "PNKE-adam", "gpt2")
    assert exported.side_file["vllm"]["problems"][0] == "'lora_bias' is set"
    assert "Not for vLLM: 'lora\\_bias' is set." in (exported.folder / "README.md").read_text()
