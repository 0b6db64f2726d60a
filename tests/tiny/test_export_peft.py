"""The LoRA adapter of a run: loaded by plain peft it is the edited model, for every method and
architecture."""

import copy
import json
import warnings

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from easyedit_neuron.edits.record import EditRecord, LayerDelta, UnitDelta
from easyedit_neuron.errors import NeuronEditError
from easyedit_neuron.export import export_peft
from helpers.editing import REQUESTS
from helpers.exports import (
    CASES,
    as_stored,
    distance,
    edited_in_float64,
    logits,
    plain_changes,
    run_of,
    same_weights,
)


def with_adapter(base, folder):
    """What plain peft makes of it; a warning is an error, but for what transformers says to peft."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        return PeftModel.from_pretrained(copy.deepcopy(base), str(folder))


def record_of(deltas, hparams=None):
    """A record made by hand."""
    fields = dict(alg_name="KNE", model_name="in memory", device="cpu")
    return EditRecord("KNE", hparams or fields, REQUESTS[:1], [], {}, {}, [], [], {}, "", "", 0, deltas)


@pytest.mark.parametrize("kind", ["granite", "opt", "falcon", "mpt", "qwen3_5_text"])
def test_adapters_of_further_architectures(kind, folder, tmp_path):
    base, edited, _, records = run_of("FiNE", kind, folder)
    export_peft(records, base, tmp_path / "adapter")
    adapted, ids = with_adapter(base, tmp_path / "adapter").eval(), torch.tensor([[1, 5, 9, 3]])
    with torch.no_grad():
        torch.testing.assert_close(adapted(ids).logits, edited(ids).logits, rtol=1e-4, atol=1e-4)
        assert (base(ids).logits - edited(ids).logits).abs().max() > 0.1


@pytest.mark.parametrize("run, kind", CASES)
def test_the_adapter_is_the_edits(run, kind, folder, tmp_path):
    base, edited, tok, records = run_of(run, kind, folder)
    untouched = copy.deepcopy(base)
    exported = export_peft(records, base, tmp_path / "adapter")
    assert same_weights(base, untouched)

    # its factors, by plain sums
    tensors, changes = load_file(tmp_path / "adapter" / "adapter_model.safetensors"), plain_changes(records)
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    weights = {name for name in changes if name.endswith(".weight")}
    assert {name.removesuffix(".weight") for name in weights} == set(config["target_modules"])
    for name in weights:
        path = name.removesuffix(".weight")
        a, b = (tensors[f"base_model.model.{path}.lora_{side}.weight"].double() for side in "AB")
        rank = config["rank_pattern"].get(path, config["r"])
        assert (
            config["alpha_pattern"].get(path, config["lora_alpha"])
            == rank
            == len(a)
            == b.shape[1]
            <= min(changes[name].shape)
        )
        assert (
            exported.side_file["parameters"][name]["rank"]
            == exported.side_file["parameters"][name]["full_rank"]
            == rank
        )
        torch.testing.assert_close(b @ a, changes[name], rtol=0, atol=2e-7 * float(changes[name].abs().max()))
    for name in set(changes) - weights:
        bias = tensors[f"base_model.model.{name.removesuffix('.bias')}.lora_B.bias"].double()
        torch.testing.assert_close(
            bias, changes[name][:, 0], rtol=0, atol=2e-7 * float(changes[name].abs().max())
        )

    # loaded, and merged
    adapted = with_adapter(base, tmp_path / "adapter")
    expected, before = logits(edited, tok), logits(base, tok)
    assert distance(logits(adapted, tok), expected) < 1e-5 < distance(before, expected)
    with adapted.disable_adapter():
        assert torch.equal(logits(adapted, tok), before)
    merged, truth = adapted.merge_and_unload(), edited_in_float64(base, records)
    for name, value in merged.named_parameters():
        assert distance(value, edited.get_parameter(name)) < 1e-6 and distance(value, truth[name]) < 5e-7
    assert all(
        parameter["truncation"] == 0 and parameter["deviation"] < 1e-4
        for parameter in exported.side_file["parameters"].values()
    )


def test_side_file_and_config(folder, tmp_path):
    base, edited, _, records = run_of("FiNE", "gpt2", folder)
    exported = export_peft(records, base, tmp_path / "adapter", base="gpt2-tiny", ids=["a", "b", "c"])
    assert sorted(path.name for path in (tmp_path / "adapter").iterdir()) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "easyedit_neuron.json",
    ]
    assert exported.size == sum(path.stat().st_size for path in (tmp_path / "adapter").iterdir())
    side_file = json.loads((tmp_path / "adapter" / "easyedit_neuron.json").read_text())
    assert side_file == exported.side_file and side_file["kind"] == "peft"
    assert side_file["base"]["model_type"] == "gpt2" and side_file["base"]["dtype"] == "float32"
    assert [edit["id"] for edit in side_file["edits"]] == ["a", "b", "c"]
    assert [edit["requests"][0]["target_new"] for edit in side_file["edits"]] == [
        r["target_new"] for r in REQUESTS
    ]
    assert side_file["edits"][0]["fingerprint_after"] == records[0].fingerprint_after
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "gpt2-tiny" and config["task_type"] == "CAUSAL_LM"
    assert config["fan_in_fan_out"] is True
    assert config["rank_pattern"] == config["alpha_pattern"]
    with pytest.raises(NeuronEditError, match="adapter: exists already"):
        export_peft(records, base, tmp_path / "adapter")


def test_which_combination_is_the_sum(folder, tmp_path):
    """Two exports of disjoint edits of a run are its whole change if both are active, or joined by ``cat``.
    ``linear`` multiplies the factors of one with those of the other, and ``svd`` cuts the rank."""
    base, edited, tok, records = run_of("NMKE", "llama", folder)
    export_peft(records[:1], base, tmp_path / "first")
    export_peft(records[1:], base, tmp_path / "second", max_rank=1)  # of the same rank, which linear wants
    export_peft(records[1:], base, tmp_path / "whole")
    expected, before = logits(edited, tok), logits(base, tok)
    adapted = with_adapter(base, tmp_path / "first")
    adapted.load_adapter(str(tmp_path / "whole"), "second")
    names = ["default", "second"]
    adapted.base_model.set_adapter(names)
    assert distance(logits(adapted, tok), expected) < 1e-5 < distance(before, expected)
    adapted.add_weighted_adapter(names, [1.0, 1.0], "cat", combination_type="cat")
    adapted.set_adapter("cat")
    assert distance(logits(adapted, tok), expected) < 1e-5
    # The change itself, without the rounding of a forward pass
    changes = plain_changes(records)
    for name, change in changes.items():
        layer = adapted.get_submodule(f"base_model.model.{name.removesuffix('.weight')}")
        assert distance(layer.get_delta_weight("cat"), change) < 1e-6
    # What is not the sum
    adapted.load_adapter(str(tmp_path / "second"), "cut")
    adapted.add_weighted_adapter(["default", "cut"], [1.0, 1.0], "linear", combination_type="linear")
    adapted.add_weighted_adapter(names, [1.0, 1.0], "svd", combination_type="svd", svd_rank=1)
    for combination in ("linear", "svd"):
        adapted.set_adapter(combination)
        assert distance(logits(adapted, tok), expected) > 1e-3


def test_two_runs_stack(folder, tmp_path):
    """Both adapters active, and both in one by peft's own means: the sum of the two runs' changes."""
    base, _, tok, first = run_of("NMKE", "llama", folder, REQUESTS[:1])
    _, _, _, second = run_of("KNE", "llama", folder, REQUESTS[1:])
    truth = edited_in_float64(base, first + second)
    export_peft(first, base, tmp_path / "first")
    export_peft(second, base, tmp_path / "second")
    plain = copy.deepcopy(base)
    with torch.no_grad():
        for name, parameter in plain.named_parameters():
            parameter.copy_(truth[name])
    expected = logits(plain, tok)

    adapted = with_adapter(base, tmp_path / "first")
    adapted.load_adapter(str(tmp_path / "second"), "second")
    alone = logits(adapted, tok)
    adapted.base_model.set_adapter(["default", "second"])
    assert distance(logits(adapted, tok), expected) < 1e-5 < distance(alone, expected)
    adapted.add_weighted_adapter(["default", "second"], [1.0, 1.0], "both", combination_type="cat")
    adapted.set_adapter("both")
    assert distance(logits(adapted, tok), expected) < 1e-5
    merged = adapted.merge_and_unload()
    assert all(distance(value, truth[name]) < 5e-7 for name, value in merged.named_parameters())


def test_an_edit_is_taken_off_by_its_negative(folder, tmp_path):
    base, _, tok, records = run_of("FiNE", "qwen2", folder)
    export_peft(records, base, tmp_path / "all")
    export_peft(records[1:2], base, tmp_path / "one", ids=[1])
    adapted = with_adapter(base, tmp_path / "all")
    adapted.load_adapter(str(tmp_path / "one"), "one")
    adapted.add_weighted_adapter(["default", "one"], [1.0, -1.0], "without", combination_type="cat")
    adapted.set_adapter("without")
    truth = edited_in_float64(base, [records[0], records[2]])
    assert all(
        distance(value, truth[name]) < 5e-7 for name, value in adapted.merge_and_unload().named_parameters()
    )


def test_a_cut_adapter_reports_what_it_loses(folder, tmp_path):
    base, _, tok, records = run_of("MEMIT", "gpt2", folder)
    changes = plain_changes(records)
    lost = {}
    for rank in (1, 2, 3):
        exported = export_peft(records, base, tmp_path / str(rank), max_rank=rank)
        tensors = load_file(tmp_path / str(rank) / "adapter_model.safetensors")
        for name, change in changes.items():
            path, parameter = name.removesuffix(".weight"), exported.side_file["parameters"][name]
            a, b = (tensors[f"base_model.model.{path}.lora_{side}.weight"].double() for side in "AB")
            assert (len(a), parameter["rank"], parameter["full_rank"]) == (rank, rank, 3)
            singular = torch.linalg.svdvals(change)
            expected = float((singular[rank:].square().sum() / singular.square().sum()).sqrt())
            assert parameter["truncation"] == pytest.approx(expected, abs=1e-7)
            assert float((b @ a - change).norm() / change.norm()) == pytest.approx(expected, abs=1e-6)
            assert parameter["deviation"] == pytest.approx(expected, abs=1e-5)
            lost[rank] = parameter["truncation"]
    assert lost[1] > lost[2] > lost[3] == 0
    exported = export_peft(records, base, tmp_path / "energy", energy=0.5)
    for name, change in changes.items():
        power = torch.linalg.svdvals(change).square()
        rank = exported.side_file["parameters"][name]["rank"]
        assert power[:rank].sum() >= 0.5 * power.sum() > power[: rank - 1].sum()


def test_more_edits_than_dimensions(tmp_path, folder):
    """A run of 40 rank-one edits of a weight with 32 rows: the adapter's rank is 32, and nothing is lost."""
    base, _, tok, records = run_of("MEMIT", "llama", folder, REQUESTS[:1])
    many = []
    torch.manual_seed(5)
    for _ in range(40):
        layers = {
            layer: LayerDelta(0.03 * torch.randn_like(d.value_factor), torch.randn_like(d.key_factor))
            for layer, d in records[0].layers.items()
        }
        many.append(EditRecord(**{**vars(records[0]), "layers": layers}))
    exported = export_peft(many, base, tmp_path / "adapter")
    assert {parameter["rank"] for parameter in exported.side_file["parameters"].values()} == {32}
    merged, truth = with_adapter(base, tmp_path / "adapter").merge_and_unload(), edited_in_float64(base, many)
    assert all(distance(value, truth[name]) < 1e-6 for name, value in merged.named_parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype, folder, tmp_path):
    """The adapter keeps the edits in float32; edited weights have been rounded, as ``deviation`` says, and
    merging rounds too."""
    base, edited, tok, records = run_of("FiNE", "llama", folder, dtype=dtype)
    exported = export_peft(records, base, tmp_path / "adapter")
    tensors, eps = load_file(tmp_path / "adapter" / "adapter_model.safetensors"), torch.finfo(dtype).eps
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    for name, change in plain_changes(records).items():
        moved = as_stored(
            base,
            name,
            edited.get_parameter(name).detach().double() - base.get_parameter(name).detach().double(),
        )
        rounding = float((moved - change).norm() / moved.norm())
        assert (
            exported.side_file["parameters"][name]["deviation"] == pytest.approx(rounding, rel=1e-5)
            and 1e-5 < rounding < 0.05
        )
    adapted, truth = with_adapter(base, tmp_path / "adapter"), edited_in_float64(base, records)
    in_float = copy.deepcopy(base).double()
    with torch.no_grad():
        for name, parameter in in_float.named_parameters():
            parameter.copy_(truth[name])
    exact = logits(in_float, tok)
    assert (
        distance(logits(adapted, tok), exact) < 30 * eps
    )  # as far off as the model itself is in this precision
    assert distance(logits(base, tok), logits(copy.deepcopy(base).double(), tok)) < 30 * eps
    for name, value in adapted.merge_and_unload().named_parameters():
        assert value.dtype == dtype and distance(value, truth[name]) <= 2 * eps


class TestRefused:
    def check(self, model, deltas, words, tmp_path):
        with pytest.raises(NeuronEditError, match=words):
            export_peft([record_of(deltas)], model, tmp_path / "out")
        assert not list(tmp_path.iterdir())

    def test_what_lora_cannot_change(self, folder, tmp_path):
        base = run_of("FiNE", "llama", folder, REQUESTS[:1])[0]
        norm = {"model.norm.weight": UnitDelta(torch.tensor([1]), torch.ones(1, 1), "output", (32, 1))}
        self.check(base, norm, "model.norm.weight belongs to a LlamaRMSNorm; .*sparse or merged", tmp_path)
        vocabulary = len(base.get_input_embeddings().weight)
        embedding = {
            "model.embed_tokens.weight": UnitDelta(
                torch.tensor([1]), torch.ones(1, 32), "output", (vocabulary, 32)
            )
        }
        self.check(base, embedding, "belongs to a Embedding; .*sparse or merged", tmp_path)

    def test_a_tied_weight(self, folder, tmp_path):
        base = run_of("FiNE", "qwen2", folder, REQUESTS[:1])[0]
        vocabulary = len(base.get_input_embeddings().weight)
        head = {"lm_head.weight": UnitDelta(torch.tensor([1]), torch.ones(1, 32), "output", (vocabulary, 32))}
        self.check(base, head, "no parameter 'lm_head.weight'|is also the weight of", tmp_path)

    def test_biases_where_not_every_module_has_one(self, folder, tmp_path):
        base = run_of("FiNE", "qwen2", folder, REQUESTS[:1])[0]
        mixed = {
            "model.layers.1.self_attn.q_proj.bias": UnitDelta(
                torch.tensor([1]), torch.ones(1, 1), "output", (32, 1)
            ),
            "model.layers.1.mlp.down_proj.weight": UnitDelta(
                torch.tensor([1]), torch.ones(1, 48), "output", (32, 48)
            ),
        }
        self.check(base, mixed, "q_proj.bias changes and model.layers.1.mlp.down_proj has no bias", tmp_path)
        alone = {name: delta for name, delta in mixed.items() if name.endswith("bias")}
        export_peft([record_of(alone)], base, tmp_path / "bias")
        merged = with_adapter(base, tmp_path / "bias").merge_and_unload()
        changed = {n for n, p in merged.named_parameters() if not torch.equal(p, base.get_parameter(n))}
        assert changed == set(alone)

    def test_options_and_nothing_to_do(self, folder, tmp_path):
        base, _, _, records = run_of("FiNE", "llama", folder, REQUESTS[:1])
        for options, words in (
            ({"max_rank": 0}, "max_rank: must be at least 1"),
            ({"energy": 1.5}, "energy: must be"),
            ({"ids": [1, 2]}, "ids: 2 given for 1 edits"),
        ):
            with pytest.raises(NeuronEditError, match=words):
                export_peft(records, base, tmp_path / "out", **options)
        with pytest.raises(NeuronEditError, match="nothing to export"):
            export_peft([], base, tmp_path / "out")
        zero = {
            "model.layers.1.mlp.down_proj.weight": UnitDelta(
                torch.tensor([1]), torch.zeros(1, 48), "output", (32, 48)
            )
        }
        self.check(base, zero, "the edits add up to no change", tmp_path)
        other = {
            "model.layers.1.mlp.down_proj.weight": UnitDelta(
                torch.tensor([1]), torch.ones(1, 64), "output", (32, 64)
            )
        }
        self.check(base, other, r"an edit changes a weight \[32, 64\], the model's is \[32, 48\]", tmp_path)
