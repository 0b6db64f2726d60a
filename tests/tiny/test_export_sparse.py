"""Sparse files and merged checkpoints: bit for bit in, bit for bit out, and refused where they do not
belong."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from easyedit_neuron.errors import NeuronEditError, StateError
from easyedit_neuron.export import apply_sparse, export_merged, export_peft, export_sparse, import_edits
from helpers.contract import KINDS
from helpers.editing import REQUESTS, changed_tensors, snapshot
from helpers.exports import CASES, distance, run_of, same_weights

NAME = "sparse.safetensors"


@pytest.mark.parametrize(
    "run, kind", [case for case in CASES if case[0] in ("NMKE", "FiNE", "KNE-attention", "PNKE-adam")]
)
def test_in_and_out_bit_for_bit(run, kind, folder, tmp_path):
    base, edited, tok, records = run_of(run, kind, folder)
    exported = export_sparse(records, base, tmp_path / "sparse")
    model = copy.deepcopy(base)
    before = snapshot(model)
    originals = apply_sparse(model, tmp_path / "sparse")
    assert same_weights(model, edited) and set(changed_tensors(model, before)) == set(originals)
    assert all(torch.equal(value, base.get_parameter(name)) for name, value in originals.items())
    apply_sparse(model, tmp_path / "sparse" / NAME, take_off=True)
    assert same_weights(model, base)

    # what it holds: the rows or columns that differ, and no others
    tensors = load_file(tmp_path / "sparse" / NAME)
    for name, parameter in exported.side_file["parameters"].items():
        differ = edited.get_parameter(name) != base.get_parameter(name)
        sides = [differ.any(1), differ.any(0)] if differ.dim() == 2 else [differ]
        sizes = [int(side.sum()) * differ.numel() // len(side) for side in sides]
        assert sizes[parameter["dim"]] == min(sizes) == tensors[f"{name}.bits"].numel()
        units = tensors[f"{name}.units"]
        assert units.tolist() == sides[parameter["dim"]].nonzero()[:, 0].tolist() and parameter[
            "units"
        ] == len(units)
    weights = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    assert weights < exported.size < weights + 20_000  # the rest is JSON


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_every_precision(dtype, folder, tmp_path):
    base, edited, _, records = run_of("FiNE", "llama", folder, dtype=dtype)
    export_sparse(records, base, tmp_path / "sparse")
    model = copy.deepcopy(base)
    apply_sparse(model, tmp_path / "sparse")
    assert same_weights(model, edited)
    apply_sparse(model, tmp_path / "sparse", take_off=True)
    assert same_weights(model, base)
    other = copy.deepcopy(base).to(torch.float32)
    with pytest.raises(
        StateError, match=f"is of a {str(dtype)[6:]} model, this one is float32: load it in {str(dtype)[6:]}"
    ):
        apply_sparse(other, tmp_path / "sparse")


class TestRefused:
    @pytest.fixture
    def run(self, folder, tmp_path):
        base, edited, tok, records = run_of("FiNE", "llama", folder)
        export_sparse(records, base, tmp_path / "sparse")
        return base, edited, tok, records

    def refused(self, model, path, words, **options):
        before = snapshot(model)
        with pytest.raises(StateError, match=words):
            apply_sparse(model, path, **options)
        assert changed_tensors(model, before) == []

    def test_models_that_it_is_not_of(self, run, tmp_path):
        base, edited, _, records = run
        self.refused(copy.deepcopy(edited), tmp_path / "sparse", "already in this model")
        self.refused(
            copy.deepcopy(base), tmp_path / "sparse", "the edits are not in this model", take_off=True
        )
        name = next(iter(records[0].deltas))
        for parameter, words in (
            (name, "unedited; this model has other edits in it"),
            ("lm_head.weight", "another model: weights that the edits do"),
        ):
            other = copy.deepcopy(base)
            with torch.no_grad():
                other.get_parameter(parameter)[0, 0] += 1
            self.refused(other, tmp_path / "sparse", words)
        smaller = copy.deepcopy(base)
        del smaller.model.layers[0].mlp.down_proj
        self.refused(
            smaller, tmp_path / "sparse", "layers.0.mlp.down_proj.weight, which this model does not have"
        )

    def test_damaged_files(self, run, tmp_path):
        base = run[0]
        good = load_file(tmp_path / "sparse" / NAME)
        key = next(key for key in good if key.endswith(".bits"))
        save_file({**good, key: good[key] ^ 1}, tmp_path / "sparse" / NAME)
        self.refused(base, tmp_path / "sparse", "sparse.safetensors: not the file that was exported")
        side_file = json.loads((tmp_path / "sparse" / "easyedit_neuron.json").read_text())
        side_file["files"] = {}
        (tmp_path / "sparse" / "easyedit_neuron.json").write_text(json.dumps(side_file))
        self.refused(base, tmp_path / "sparse", "does not lead to the weights that its side file names")
        (tmp_path / "sparse" / "easyedit_neuron.json").write_text("{")
        self.refused(base, tmp_path / "sparse", "not readable")
        (tmp_path / "sparse" / "easyedit_neuron.json").unlink()
        self.refused(base, tmp_path / "sparse", "it has no easyedit_neuron.json")
        self.refused(base, tmp_path / "none", "there is no such file or folder")

    def test_other_kinds(self, run, tmp_path):
        base, _, _, records = run
        export_peft(records, base, tmp_path / "peft")
        self.refused(base, tmp_path / "peft", "holds a peft export, not a sparse one")
        export_merged(records, base, None, tmp_path / "merged")
        for path, options, words in (
            ("merged", {}, "with the edits in it already"),
            ("peft", {"take_off": True}, "cannot be taken off merged"),
        ):
            with pytest.raises(StateError, match=words):
                import_edits(tmp_path / path, base, None, tmp_path / "out", **options)
        with pytest.raises(NeuronEditError, match="sparse: exists already"):
            import_edits(tmp_path / "peft", base, None, tmp_path / "sparse")
        assert not (tmp_path / "out").exists()


def checkpoint(path):
    return AutoModelForCausalLM.from_pretrained(path).eval()


@pytest.mark.parametrize("kind", KINDS)
def test_checkpoints(kind, folder, tmp_path):
    """Merged at once, or by way of an adapter or a sparse file: from_pretrained gives the edited model; and
    the base again."""
    base, edited, tok, records = run_of("NMKE", kind, folder)
    untouched = copy.deepcopy(base)
    exported = export_merged(records, base, tok, tmp_path / "merged")
    assert same_weights(checkpoint(tmp_path / "merged"), edited) and same_weights(base, untouched)
    prompt = REQUESTS[0]["prompt"]
    assert AutoTokenizer.from_pretrained(tmp_path / "merged")(prompt)["input_ids"] == tok(prompt)["input_ids"]
    side_file = json.loads((tmp_path / "merged" / "easyedit_neuron.json").read_text())
    assert (
        side_file == exported.side_file
        and side_file["kind"] == "merged"
        and [edit["id"] for edit in side_file["edits"]] == [0, 1, 2]
    )

    export_sparse(records, base, tmp_path / "sparse")
    import_edits(tmp_path / "sparse" / NAME, copy.deepcopy(base), tok, tmp_path / "from sparse")
    assert same_weights(checkpoint(tmp_path / "from sparse"), edited)
    import_edits(
        tmp_path / "sparse", checkpoint(tmp_path / "from sparse"), tok, tmp_path / "taken off", take_off=True
    )
    assert same_weights(checkpoint(tmp_path / "taken off"), base)
    assert json.loads((tmp_path / "taken off" / "easyedit_neuron.json").read_text())["edits"] == []

    export_peft(records, base, tmp_path / "peft")
    import_edits(tmp_path / "peft", copy.deepcopy(base), tok, tmp_path / "from peft")
    for name, value in checkpoint(tmp_path / "from peft").named_parameters():
        assert distance(value, edited.get_parameter(name)) < 1e-6
    with pytest.raises(StateError, match="this model has other edits in it|already in this model"):
        import_edits(tmp_path / "peft", copy.deepcopy(edited), tok, tmp_path / "twice")
