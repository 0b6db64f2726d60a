"""The benchmark programs run from end to end on a tiny shape; an edit takes no more memory than estimated."""

import json

import pytest
import torch

from benchmarks import attribution, drift, editing, fine, fine_ablations, floor, growth, solve
from benchmarks.memory import bytes_needed, peak_bytes, widest_basis
from benchmarks.models import SHAPES, random_llama
from easyedit_neuron.arch.view import ModelView
from easyedit_neuron.edits.request import prepare
from easyedit_neuron.edits.session import last_record
from easyedit_neuron.edits.write import clone_weights, down_names
from easyedit_neuron.locate_then_edit.z_prompts import z_prompts
from easyedit_neuron.models.alphaedit.alphaedit_hparams import AlphaEditHyperParams
from easyedit_neuron.models.nmke.nmke_hparams import NMKEHyperParams
from easyedit_neuron.models.nmke.nmke_main import apply_nmke_to_model

TINY = SHAPES["tiny"]
STAYS = ("weights", "covariances", "eigen-decomposition", "null space bases", "solvers")


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    original = editing.settings

    def settings(*args, **changes):
        return original(*args, **{"v_num_grad_steps": 3, **changes})

    for module in (editing, growth):
        monkeypatch.setattr(module, "settings", settings)


@pytest.mark.parametrize("name", ["memit", "alphaedit-random"])
def test_growth_fills_the_state_and_leaves_the_model_as_it_was(name):
    model, tok = random_llama("tiny")
    view = ModelView.of(model)
    before = clone_weights(model, down_names(view, editing.LAYERS))
    first, later = growth.measure(name, model, tok, [300, 1], 1, "cpu")
    assert (first["edits"], later["edits"]) == ([2, 2], [300, 300]) and first["solve_over_first_count"] == 1
    d_ff, layers = TINY["intermediate_size"], len(editing.LAYERS)
    # 1 and 1 real keys, 296 synthetic ones, which fill the buffer, 1 and 1 real ones, for which it doubles
    assert later["held_bytes"]["keys"] == layers * 2 * 298 * d_ff * 4
    if name == "memit":  # the factor of C, the probe of the residual (3 rows), and room for 8 keys
        assert first["held_bytes"]["solvers"] == layers * (d_ff + 3 + 8) * d_ff * 8
    else:
        assert (first["held_bytes"]["solvers"], later["held_bytes"]["solvers"]) == (
            0,
            layers * d_ff * d_ff * 8,
        )
    assert (
        all(torch.equal(value, view.model.get_parameter(key)) for key, value in before.items())
        and last_record(model) is None
    )


@pytest.mark.parametrize("dtype, scores, batch", [(torch.bfloat16, "mpc", 4), (torch.float32, "lps", 1)])
def test_an_edit_takes_no_more_memory_than_estimated(dtype, scores, batch):
    model, tok = random_llama("tiny", dtype)
    view, take = ModelView.of(model), editing.requests()
    hparams = NMKEHyperParams(
        **editing.settings("not used", editing.contexts(), alg_name="NMKE", attribution=scores)
    )
    editing.prepared(view, tok, hparams, widest_basis(view.d_ff))
    apply_nmke_to_model(model, tok, take(batch), hparams)  # makes what stays
    requests = take(batch)
    peak = peak_bytes(lambda: apply_nmke_to_model(model, tok, requests, hparams))
    prompts = z_prompts(tok, prepare(requests), ["{}", *editing.contexts()], hparams.kl_prompt, "cpu")
    tokens = prompts.targets.batch.input_ids.numel()
    needs = bytes_needed("tiny", dtype, torch.float64, editing.LAYERS, tokens, "cpu")
    assert peak <= sum(count for name, count in needs.items() if name not in STAYS)


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


def test_solvers_find_what_the_plain_equations_say(tmp_path, capsys):
    file = tmp_path / "result.json"
    sizes = ["--sizes", "64", "--keys", "1", "3", "--earlier", "0", "20"]
    solve.main([*sizes, "--repeats", "1", "--json", str(file)])
    rows = json.loads(file.read_text())["results"]
    assert len(rows) == 8 and all(row["difference"] < 1e-3 for row in rows)
    assert "geometric mean of the ratios" in capsys.readouterr().out
    drift.main(["--d-ff", "64", "--checkpoints", "1", "30", "--json", str(file)])
    rows = json.loads(file.read_text())["results"]
    assert [(row["path"], row["kept"], row["edit"]) for row in rows[:2]] == [
        ("alphaedit", "float64", 1),
        ("alphaedit", "float64", 30),
    ]
    assert len(rows) == 8 and all(row["error"] < 1e-3 for row in rows)


def test_the_floor_of_the_search(capsys):
    assert floor.main(["--repeats", "1", "--model", "tiny"]) == 0
    assert capsys.readouterr().out.count("search (peer) over its floor (ours)") == 2


def test_a_model_with_settings_is_edited_with_them(tmp_path):
    edited = editing.subject("tiny-llama", str(tmp_path))
    shipped = AlphaEditHyperParams.from_hparams("AlphaEdit/tiny-llama")
    assert edited.fields["v_lr"] == shipped.v_lr and edited.fields["layers"] == shipped.layers
    assert edited.templates and all(template.count("{}") == 1 for template in edited.templates)
    assert not {request["prompt"] for request in edited.take(2)} & {
        request["prompt"] for request in edited.take(2)
    }


def test_attribution_gives_the_released_scores(tmp_path, capsys):
    file = tmp_path / "result.json"
    sizes = ["--prompts", "2", "--hidden", "64", "--d-ff", "96", "--vocabulary", "500", "--repeats", "1"]
    assert attribution.main([*sizes, "--json", str(file)]) == 0
    assert json.loads(file.read_text())["settings"]["difference"] < 1e-4
    assert "floor: product" in capsys.readouterr().out
