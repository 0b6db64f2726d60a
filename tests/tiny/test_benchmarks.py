"""The benchmark programs run from end to end on a tiny shape, and the memory bound holds for what an edit
really takes."""

import json

import pytest
import torch

from benchmarks import editing, fine, fine_ablations, growth, llama3_8b, timing
from benchmarks.memory import Rows, bytes_needed, peak_bytes, rows_held, solver_bytes, widest_basis
from benchmarks.models import SHAPES, random_llama
from easyedit_neuron.arch.view import ModelView
from easyedit_neuron.edits.request import prepare
from easyedit_neuron.edits.session import last_record
from easyedit_neuron.edits.write import clone_weights, down_names
from easyedit_neuron.locate_then_edit.z_prompts import target_prompts
from easyedit_neuron.models.nmke.nmke_hparams import NMKEHyperParams
from easyedit_neuron.models.nmke.nmke_main import apply_nmke_to_model

TINY = SHAPES["tiny"]
STAYS = ("weights", "covariances", "eigen-decomposition", "null space bases", "solvers", "keys")


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    usual = editing.settings

    def settings(*args, **changes):
        return usual(*args, **{"v_num_grad_steps": 3, **changes})

    for module in (editing, growth, llama3_8b):
        monkeypatch.setattr(module, "settings", settings)


def test_the_8b_program_runs_on_a_tiny_shape(tmp_path, capsys):
    file = tmp_path / "result.json"
    assert (
        llama3_8b.main(
            ["--shape", "tiny", "--device", "cpu", "--repeats", "1", "--batch", "2", "--json", str(file)]
        )
        == 0
    )
    written = json.loads(file.read_text())
    assert [row["method"] for row in written["results"]] == ["lps", "mpc", "alphaedit"]
    for row in written["results"]:
        assert {"target", "mask", "keys", "solve"} <= set(row["stages"]) and row["peak"]["host"] > 0
        assert sum(row["stages"].values()) == pytest.approx(row["seconds"][0])
    bound = written["settings"]["bytes_needed"]
    assert bound["weights"] == 2 * sum(p.numel() for p in random_llama("tiny")[0].parameters())
    told = capsys.readouterr().out
    assert "together" in told and "lps" in told and "target of" not in told


@pytest.mark.parametrize(
    "cuda, free, words",
    [(False, 1 << 50, "there is no CUDA device"), (True, 1 << 30, "1.0 GiB are free on cuda")],
)
def test_the_8b_program_refuses_before_it_loads_anything(monkeypatch, capsys, cuda, free, words):
    def never(*_args):
        raise AssertionError("nothing may be loaded")

    monkeypatch.setattr(llama3_8b, "random_llama", never)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(timing, "free_bytes", lambda device: free)
    assert llama3_8b.main([]) == 2
    told = capsys.readouterr()
    assert (
        words in told.err and "weights" in told.out and "15.0 GiB" in told.out
    )  # 8,030,261,248 parameters of 2 bytes


@pytest.mark.parametrize("name", ["memit", "alphaedit-random"])
def test_growth_fills_the_state_and_leaves_the_model_as_it_was(name):
    model, tok = random_llama("tiny")
    view = ModelView.of(model)
    before = clone_weights(model, down_names(view, editing.LAYERS))
    first, later = growth.measure(name, model, tok, [300, 1], 1, "cpu")
    assert (first["edits"], later["edits"]) == ([2, 2], [300, 300]) and first["solve_over_first_count"] == 1
    d_ff, layers = TINY["intermediate_size"], len(editing.LAYERS)
    # 1 and 1 real keys, 296 of edits that were never made, 1 and 1 real ones
    assert later["held_bytes"]["keys"] == layers * rows_held([1, 1, 296, 1, 1]) * d_ff * 4
    if name == "memit":
        assert first["held_bytes"]["solvers"] == layers * solver_bytes("memit", d_ff, 0, 2, 1, torch.float64)
    else:
        assert (first["held_bytes"]["solvers"], later["held_bytes"]["solvers"]) == (
            0,
            layers * d_ff * d_ff * 8,
        )
    assert (
        all(torch.equal(value, view.model.get_parameter(key)) for key, value in before.items())
        and last_record(model) is None
    )


@pytest.mark.parametrize(
    "dtype, scores, batch, changes",
    [
        (torch.bfloat16, "mpc", 4, {"num_hidden_layers": 20}),  # the search takes most
        (torch.float32, "mpc", 2, {"vocab_size": 20000}),  # the logits in the loss
        (torch.float32, "lps", 1, {}),  # the attribution
        (torch.bfloat16, "lps", 4, {"hidden_size": 128, "intermediate_size": 600}),  # the clean pass
    ],
)
def test_an_edit_takes_no_more_memory_than_was_worked_out_and_not_much_less(
    tmp_path, dtype, scores, batch, changes
):
    model, tok = random_llama("tiny", dtype, **changes)
    view, take = ModelView.of(model), editing.requests()
    hparams = NMKEHyperParams(
        **editing.settings("not used", editing.contexts(), alg_name="NMKE", attribution=scores)
    )
    editing.prepared(view, tok, hparams, widest_basis(view.d_ff))
    apply_nmke_to_model(model, tok, take(batch), hparams)  # what stays is made
    requests = take(batch)
    peak = peak_bytes(lambda: apply_nmke_to_model(model, tok, requests, hparams))
    rows = Rows.of(
        target_prompts(tok, prepare(requests), ["{}", *editing.contexts()], hparams.kl_prompt, "cpu")
    )
    needs = bytes_needed(
        {**TINY, **changes}, dtype, editing.LAYERS, rows, edits=2, scores=scores, device="cpu"
    )
    passing = sum(count for name, count in needs.items() if name not in STAYS)
    assert peak <= passing <= 4 * peak


def test_fine_finds_the_edit_of_the_release(tmp_path, capsys):
    file = tmp_path / "result.json"
    assert (
        fine.main(["--shape", "tiny", "--steps", "4", "--repeats", "1", "--batch", "2", "--json", str(file)])
        == 0
    )
    written = json.loads(file.read_text())
    assert (
        written["settings"]["difference"] < 1e-4
        and len(written["settings"]["memory"]) == 1 + len(written["results"]) == 4
    )
    for row in written["results"]:
        assert set(row["stages"]) == {"locate", "train", "write"} and row["modified_parameters"][0] % 64 == 0
    assert "peak memory of an edit" in capsys.readouterr().out


def test_ablations_of_fine_make_a_table(capsys):
    assert (
        fine_ablations.main(["--edits", "1", "--facts", "9", "--continued", "1", "--only", "layer 4 alone"])
        == 0
    )
    head, _, untouched, row = capsys.readouterr().out.strip().splitlines()
    assert (
        head.startswith("| 1 edits | Rel | Gen |")
        and untouched.split(" | ")[3:6] == ["1.000"] * 3
        and row.startswith("| layer 4 alone | 1.000 |")
    )
