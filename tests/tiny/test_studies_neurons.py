"""The studies of neurons: silencing, meanings, and every command once on a tiny model and a few facts."""

import csv
import json

import pytest
import torch
from safetensors.torch import save_file

from easyedit_neuron.arch import ModelView
from easyedit_neuron.attribution import top_tokens
from easyedit_neuron.edits.record import EditRecord, UnitDelta
from easyedit_neuron.edits.request import prepare
from easyedit_neuron.errors import NeuronEditError
from easyedit_neuron.report.page import write_page
from easyedit_neuron.report.runs import read_runs
from easyedit_neuron.studies import ablation, drift, meanings, roles, sites
from easyedit_neuron.studies.ablation import score_answers
from easyedit_neuron.studies.command import StudiedModel, hparams_of
from easyedit_neuron.studies.silence import silenced
from easyedit_neuron.studies.tasks import Fact
from easyedit_neuron.utils.fingerprint import model_fingerprint
from helpers.run_folders import run_folder
from helpers.tiny_models import tiny_model

pytest.importorskip("matplotlib")
SUBJECTS = ("Danielle Darrieux", "Edwin of Northumbria", "Toko Yasuda", "Autonomous University of Madrid")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A saved model, and facts of two relations."""
    path = tmp_path_factory.mktemp("model")
    model, tok = tiny_model("llama")
    model.save_pretrained(path)
    tok.save_pretrained(path)
    facts = [
        {
            "prompt": f"The {relation} of {subject} is",
            "subject": subject,
            "target_new": "French",
            "ground_truth": "English",
            "relation": relation,
        }
        for relation in ("tongue", "home")
        for subject in SUBJECTS
    ]
    (path / "facts.json").write_text(json.dumps(facts))
    (path / "pnke.json").write_text(
        json.dumps(
            {
                "alg_name": "PNKE",
                "model_name": "x",
                "layers": [0],
                "psem_sources": ["context"],
                "psem_size": 2,
                "context_length": 6,
                "ig_steps": 2,
            }
        )
    )
    (path / "nmke.json").write_text(
        json.dumps({"alg_name": "NMKE", "model_name": "x", "layers": [0], "context_length": 6})
    )
    return path


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def done(out, name, *tables):
    assert (out / f"{name}.png").read_bytes()[:4] == b"\x89PNG" and "<svg" in (
        out / f"{name}.html"
    ).read_text()
    return [rows_of(out / f"{table}.csv") for table in tables]


def common(folder, out, data=True):
    facts = ["--data", str(folder / "facts.json")] if data else []
    return ["--model", str(folder), "--device", "cpu", "--out", str(out), *facts]


# ---- silencing
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "gpt_neox"])
def test_silent_neurons_are_those_whose_columns_are_zero(model_type):
    model, tok = tiny_model(model_type)
    view, ids = (
        ModelView.of(model),
        torch.tensor([tok("The mother tongue of Danielle Darrieux is")["input_ids"]]),
    )
    neurons = {0: torch.tensor([3, 7]), 2: torch.tensor([0]), 3: torch.tensor([], dtype=torch.long)}
    with torch.no_grad():
        with silenced(view, neurons):
            silent = model(input_ids=ids).logits
        whole = model(input_ids=ids).logits
        for layer, units in neurons.items():
            view.down_matrix(layer)[:, units] = 0
        torch.testing.assert_close(silent, model(input_ids=ids).logits)
    assert not torch.allclose(silent, whole)


def test_hooks_are_gone_after_an_exception():
    model, _ = tiny_model("llama")
    view = ModelView.of(model)
    before = model(input_ids=torch.tensor([[5, 6]])).logits
    with pytest.raises(RuntimeError, match="stop"), silenced(view, {1: torch.tensor([0, 1])}):
        assert view.down_proj(1)._forward_pre_hooks
        raise RuntimeError("stop")
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())
    assert torch.equal(model(input_ids=torch.tensor([[5, 6]])).logits, before)
    with (
        pytest.raises(NeuronEditError, match="neurons are 0 to"),
        silenced(view, {1: torch.tensor([view.d_ff])}),
    ):
        pass


def test_answers_are_measured_as_the_model_says_them():
    model, tok = tiny_model("llama")
    facts = {
        "a": [
            Fact("Anna Berg was born in", "Paris", "Anna Berg", "a"),
            Fact("She lives in", "Rome", "She", "a"),
        ],
        "b": [Fact("The capital of Norway is", "Oslo or so", "Norway", "b")],
    }
    answers = score_answers(StudiedModel(model, tok, ModelView.of(model)), facts)
    for task, task_facts in facts.items():
        accuracy, nll = [], []
        for fact in task_facts:
            start, whole = (tok(text)["input_ids"] for text in (fact.prompt, f"{fact.prompt} {fact.answer}"))
            with torch.no_grad():
                logs = model(input_ids=torch.tensor([whole])).logits[0].double().log_softmax(-1)
            places = range(len(start), len(whole))
            accuracy.append(sum(int(logs[at - 1].argmax()) == whole[at] for at in places) / len(places))
            nll.append(-sum(float(logs[at - 1, whole[at]]) for at in places) / len(places))
        assert answers.accuracy[task] == pytest.approx(sum(accuracy) / len(task_facts))
        assert answers.nll[task] == pytest.approx(sum(nll) / len(task_facts), rel=1e-5)


# ---- meanings
# ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model_type, centred", [("llama", False), ("gpt2", True)])
def test_top_tokens_by_a_plain_product(model_type, centred):
    model, tok = tiny_model(model_type)
    view, unembedding = ModelView.of(model), model.get_output_embeddings().weight.detach().double()
    vector = view.down_matrix(2)[:, 5].double()
    added = torch.linspace(-1, 1, len(vector), dtype=torch.float64)
    normed = (vector - vector.mean() if centred else vector) * view.final_norm.weight.detach().double()
    for options, expected in (
        ({}, vector),
        ({"added": added}, vector + added),
        ({"final_norm": True}, normed),
    ):
        logits = unembedding @ expected
        best = sorted(range(len(logits)), key=lambda token: -logits[token])[:4]
        top = top_tokens(view, tok, 2, 5, 4, **options)
        assert [token for token, _ in top] == [tok.decode([token]) for token in best]
        assert [value for _, value in top] == pytest.approx(
            [float(logits[token]) for token in best], rel=1e-4
        )


def test_meanings_of_named_neurons_and_of_a_record(folder, tmp_path, capsys):
    model, tok = tiny_model("llama")
    view = ModelView.of(model)
    assert (
        meanings.main([*common(folder, tmp_path / "a", False), "--neurons", "1:2", "0:5", "--tokens", "3"])
        == 0
    )
    assert [row["neuron"] for row in rows_of(tmp_path / "a" / "meanings.csv")] == ["L1.U2", "L0.U5"]
    assert rows_of(tmp_path / "a" / "meanings.csv")[0]["says"] == ", ".join(
        repr(t) for t, _ in top_tokens(view, tok, 1, 2, 3)
    )
    vectors = torch.stack(
        [torch.full((view.d_model,), 0.5), 3 * model.get_output_embeddings().weight[65].detach()]
    )
    name, shape = view.down_weight_name(1), (view.d_model, view.d_ff)
    delta = UnitDelta(torch.tensor([4, 9]), vectors, "input", shape)
    record = EditRecord("FiNE", {}, [], [], {}, {}, [], [], {}, "", "", 0, {name: delta})
    record.save(tmp_path / "edit.safetensors")
    arguments = [*common(folder, tmp_path / "b", False), "--count", "9", "--record"]
    assert meanings.main([*arguments, str(tmp_path / "edit.safetensors")]) == 0
    first, second = rows_of(tmp_path / "b" / "meanings.csv")  # two neurons moved, not nine
    assert first["neuron"] == "L1.U9" and float(first["change"]) == pytest.approx(
        float(vectors[1].norm()), rel=1e-4
    )
    assert second["neuron"] == "L1.U4" and first["says_before"] != first["says_after"]
    assert meanings.main([*common(folder, tmp_path / "c", False), "--neurons", "1-2"]) == 2
    assert "must read LAYER:NUMBER" in capsys.readouterr().err and not (tmp_path / "c").exists()
    other = UnitDelta(torch.tensor([0]), torch.ones(1, view.d_model), "output", (view.d_model, view.d_model))
    EditRecord(
        "KNE", {}, [], [], {}, {}, [], [], {}, "", "", 0, {"model.layers.0.self_attn.o_proj.weight": other}
    ).save(tmp_path / "kne.safetensors")
    assert meanings.main([*arguments, str(tmp_path / "kne.safetensors")]) == 2
    assert "no value vector has moved" in capsys.readouterr().err


def finished_run(folder, path, scale=0.5, method="NMKE", change="model.layers.1.mlp.down_proj.weight"):
    """A run folder of the model whose one weight has grown."""
    model, _ = tiny_model("llama")
    run_folder(path, method, edits=10, layers=("1",))
    run_info = json.loads((path / "run.json").read_text())
    (path / "run.json").write_text(json.dumps({**run_info, "model": {"weights": model_fingerprint(model)}}))
    weight = model.get_parameter(change).detach()
    grown = weight.clone()
    grown[:, 7] += scale * torch.linspace(0.5, 1, len(weight))
    save_file({change: grown}, path / "weights.safetensors")
    return path


def test_meanings_of_a_run_stand_in_its_report(folder, tmp_path):
    path = finished_run(folder, tmp_path / "run")
    assert meanings.main(["--model", str(folder), "--device", "cpu", "--run", str(path)]) == 0
    (row,) = rows_of(path / "meanings.csv")
    assert row["neuron"] == "L1.U7"
    text = write_page(read_runs([path]), path / "report.html").read_text()
    assert "What the most changed neurons say" in text and "L1.U7" in text


def test_neurons_located_for_facts(folder, tmp_path):
    assert meanings.main([*common(folder, tmp_path), "--locate", "4", "--count", "2"]) == 0
    rows, shares = done(tmp_path, "meanings", "located", "matches")
    located, drawn = ([row for row in rows if row["kind"] == kind] for kind in ("located", "random"))
    assert len(located) == len(drawn) == 8 and {row["relation"] for row in rows} == {"tongue", "home"}
    assert not {(row["fact"], row["neuron"]) for row in located} & {
        (row["fact"], row["neuron"]) for row in drawn
    }
    share = sum(row["object"] == "True" for row in located) / 8
    assert float(shares[0]["neurons_object"]) == share and float(shares[0]["facts_object"]) >= share


def test_what_located_neurons_are_shared_with(folder, tmp_path):
    facts = [
        Fact("a is", "x", "a", "r"),
        Fact("b is", "x", "b", "q"),
        Fact("b has", "y", "b", "r"),
        Fact("c has", "z", "c", "s"),
    ]
    neurons = [{"L0.U1", "L0.U2"}, {"L0.U1"}, {"L0.U1", "L1.U1", "L1.U2", "L1.U3"}, {"L1.U1"}]
    rows = [
        {"fact": f"{fact.prompt} {fact.answer}", "kind": kind, "neuron": neuron}
        for fact, located in zip(facts, neurons)
        for kind, names in (("located", located), ("random", {"L2.U0"}))
        for neuron in names
    ]
    assert meanings.shared(facts, rows) == [
        {"in common": "same object", "pairs": 2, "shared": (1 / 2 + 1) / 2},  # a, b
        {"in common": "same subject", "pairs": 2, "shared": (1 + 1 / 4) / 2},  # b, b
        {"in common": "same relation", "pairs": 2, "shared": (1 / 2 + 1 / 4) / 2},  # a, b's other
        {"in common": "nothing", "pairs": 6, "shared": (1 / 4 + 1) / 6},
    ]  # c and b's other, alone of c's pairs
    assert meanings.main([*common(folder, tmp_path), "--locate", "4"]) == 0
    (table,) = done(tmp_path, "meanings", "shared")
    assert [(row["in common"], row["pairs"]) for row in table] == [
        ("same object", "12")
    ]  # every fact there says English


# ---- the other commands
# ------------------------------------------------------------------------------------------------


def test_roles(folder, tmp_path):
    options = ["--edits", "2", "--nmke", str(folder / "nmke.json"), "--pnke", str(folder / "pnke.json")]
    assert roles.main([*common(folder, tmp_path), *options]) == 0
    rows, activations = done(tmp_path, "roles", "roles", "activations")
    assert len(rows) == 2 * 2 * 4 and len(activations) == 4
    for row in rows:
        assert sum(
            float(row[name]) for name in ("first_only", "overlap", "second_only", "neither")
        ) == pytest.approx(1, abs=1e-5)
        assert float(row["first"]) == pytest.approx(
            float(row["first_only"]) + float(row["overlap"]), abs=1e-5
        )
    trigger = [float(row["second"]) for row in rows if (row["definition"], row["scope"]) == ("PNKE", "layer")]
    assert max(trigger) <= 0.11  # above the 90th percentile of 48 neurons are five at most


def test_requests_scored_together_have_the_roles_that_each_has_by_itself(folder):
    model, tok = tiny_model("llama")
    nmke, pnke = (hparams_of(name, "tiny", str(folder / f"{name.lower()}.json")) for name in ("NMKE", "PNKE"))
    definitions = roles.Definitions(StudiedModel(model, tok, ModelView.of(model)), [0, 2], nmke, pnke)
    requests = prepare(json.loads((folder / "facts.json").read_text())[2:6])  # of different lengths
    for definition in roles.NAMES:
        for request, together in zip(requests, definitions.scores(definition, requests)):
            (alone,) = definitions.scores(definition, [request])
            for layer, scores in alone.items():
                pairs = zip(
                    definitions.roles(definition, scores), definitions.roles(definition, together[layer])
                )
                assert all(torch.equal(first, second) for first, second in pairs)


def test_ablation_measures_other_facts_and_leaves_no_hook(folder, tmp_path, capsys):
    options = [
        "--locate",
        "2",
        "--measure",
        "2",
        "--top",
        "1",
        "4",
        "--seeds",
        "2",
        "--active",
        "0.5",
        "--samples",
        "2",
    ]
    assert ablation.main([*common(folder, tmp_path), *options]) == 0
    tables = ("ablation", "ablation_means", "ablation_neurons", "ablation_layers", "ablation_trials")
    rows, means, counts, layers, trials = done(tmp_path, "ablation", *tables)
    for row in rows:  # over two samples where the kind has neurons in both
        row_trials = [trial for trial in trials if (trial["name"], trial["top"]) == (row["name"], row["top"])]
        own, drawn = (
            [float(trial["rise_own"]) for trial in row_trials if not trial["draw"]],
            [trial for trial in row_trials if trial["draw"]],
        )
        assert float(row["rise_own"]) == pytest.approx(sum(own) / len(own), rel=1e-4, abs=1e-9) and len(
            drawn
        ) == 2 * len(own)
    assert {row["top"] for row in means} == {"1", "4"} and any(row["rise_own_std"] for row in means)
    assert [row["layer"] for row in layers] == ["0", "1", "2", "3"] and all(
        -1 <= float(row["drop"]) <= 1 for row in layers
    )
    assert {row["kind"] for row in rows} <= {"general", "task"} and all(
        float(row["silenced"]) <= int(row["top"]) for row in rows
    )
    assert all(
        float(row["neurons"]) == sum(float(row[f"layer_{layer}"]) for layer in range(4)) for row in counts
    )
    assert ablation.main([*common(folder, tmp_path / "b"), "--locate", "4"]) == 2
    assert "has 4 facts; --locate 4 leaves none" in capsys.readouterr().err and not (tmp_path / "b").exists()


def test_sites(folder, tmp_path, capsys):
    options = ["--steps", "2", "--modules", "o_proj", "down_proj", "--share", "0.02", "--edits"]
    assert sites.main([*common(folder, tmp_path), *options, "3", "--attributed", "1", "--samples", "2"]) == 0
    layers, modules = done(tmp_path, "sites", "sites_layers", "sites_modules")
    assert sum(float(row["share_of_located"]) for row in layers) == pytest.approx(1) and len(modules) == 2 * 4
    for name in ("share_of_attribution", "share_of_ensemble"):
        assert sum(float(row[name]) for row in modules) == pytest.approx(1, abs=1e-4)
    # two samples of a request each: what both lose together is the mean, as their answers are of one token
    assert sites.main([*common(folder, tmp_path / "both"), *options, "2", "--attributed", "2"]) == 0
    _, both = done(tmp_path / "both", "sites", "sites_layers", "sites_modules")
    lost = [[float(row["probability_lost"]) for row in rows] for rows in (modules, both)]
    assert lost[0] == pytest.approx(lost[1], rel=1e-3, abs=1e-9) and all(
        float(row["probability_lost_std"]) for row in modules
    )
    assert sites.main([*common(folder, tmp_path / "no"), *options, "3", "--samples", "4"]) == 2
    assert "there are 3 requests, fewer than one for each" in capsys.readouterr().err


def test_drift_of_runs(folder, tmp_path, capsys):
    first, second = (
        finished_run(folder, tmp_path / method, scale, method)
        for method, scale in (("AlphaEdit", 2.0), ("NMKE", 0.5))
    )
    assert (
        drift.main(
            [
                str(first),
                str(second),
                "--model",
                str(folder),
                "--device",
                "cpu",
                "--out",
                str(tmp_path / "out"),
                "--sample",
                "20",
            ]
        )
        == 0
    )
    rows, lengths, points = done(tmp_path / "out", "drift", "drift", "drift_lengths", "drift_tsne")
    by_layer_and_model = {(row["layer"], row["model"]): row for row in rows}
    assert [float(by_layer_and_model["0", "NMKE"][name]) for name in ("wasserstein", "cosine", "l2")] == [
        0,
        pytest.approx(1),
        0,
    ]
    # every row has moved in one entry, by 0.5 to 1 times the scale
    assert float(by_layer_and_model["1", "NMKE"]["l2"]) == pytest.approx(0.375, rel=1e-4)
    assert float(by_layer_and_model["1", "AlphaEdit"]["l2"]) == pytest.approx(1.5, rel=1e-4)
    assert len(lengths) == 3 * 32 and len(points) == 3 * 20
    (reach,) = done(tmp_path / "out", "drift", "drift_reach")
    assert {(row["model"], row["edits"]) for row in reach} == {("AlphaEdit", "10"), ("NMKE", "10")}
    for row in reach:
        assert float(row["reach"]) == pytest.approx(float(row["leakage"]) * float(row["l2"]) ** 2, rel=1e-4)
    run_info = json.loads((second / "run.json").read_text())
    (second / "run.json").write_text(json.dumps({**run_info, "model": {"weights": "another"}}))
    assert (
        drift.main([str(second), "--model", str(folder), "--device", "cpu", "--out", str(tmp_path / "no")])
        == 2
    )
    assert "edited another model" in capsys.readouterr().err and not (tmp_path / "no").exists()
