"""The forecast of a sequence: spill and clashes against dense formulas, against a real edit, and in a run."""

import csv
import json

import pytest
import torch

from easyedit_neuron.arch.view import ModelView
from easyedit_neuron.edits.request import prepare
from easyedit_neuron.locate_then_edit.compute_keys import compute_keys, key_prompts
from easyedit_neuron.locate_then_edit.forecast import Forecast, forecast
from easyedit_neuron.statistics.cache import Statistics
from easyedit_neuron.statistics.names import name_keys
from easyedit_neuron.studies import forecast as study
from helpers.editing import REQUESTS, apply, make_hparams
from helpers.lifelong_runs import make_world, start
from helpers.tiny_models import tiny_model

TEXT = "You know Anna Berg and Peter Olsen.\nRome is in the south of Norway, and so is London.\n"
NAMES = ["Anna Berg", "Peter Olsen", "Norway", "London"]
METHODS = {
    "memit": ("MEMIT", {"batch_size": 2}),
    "memit that protects": ("MEMIT", {"accumulate_keys": True, "L2": 0.3}),
    "alphaedit": ("AlphaEdit", {"nullspace_threshold": 0.05}),
    "rome": ("ROME", {"L2": 0.01}),
    "rome without covariance": ("ROME", {"mom2_adjustment": False}),
    "nmke": ("NMKE", {"nullspace_threshold": 0.05}),
}


@pytest.fixture
def setting(tmp_path):
    (tmp_path / "names.txt").write_text(TEXT, encoding="utf-8")
    model, tok = tiny_model("llama")

    def hparams_of(name, **changes):
        method, fields = METHODS[name]
        text = {"mom2_dataset": str(tmp_path / "names.txt"), "mom2_n_samples": 2}
        return make_hparams(method, tmp_path, **{**text, **fields, **changes})

    return model, tok, hparams_of


def told(model, tok, hparams, requests=REQUESTS, counts=None):
    view = ModelView.of(model)
    return forecast(view, tok, prepare(requests), hparams, Statistics(view, tok, hparams), counts)


def dense(hparams, covariance, keys):
    """X [d_ff, n] by the textbook, in float64."""
    identity, n = torch.eye(len(keys), dtype=torch.float64), keys.shape[1]
    if hparams.path == "rome":
        u = (
            keys
            if not hparams.mom2_adjustment
            else torch.linalg.solve(covariance + hparams.L2 * identity, keys)
        )
        return torch.stack([u[:, i] / (u[:, i] @ keys[:, i]) for i in range(n)], 1)
    if hparams.preserves == "nullspace":
        values, vectors = torch.linalg.eigh(covariance)
        projector = vectors[:, values < hparams.nullspace_threshold]
        projector = projector @ projector.T
        return torch.linalg.solve(projector @ keys @ keys.T + hparams.L2 * identity, projector @ keys)
    system = hparams.mom2_update_weight * covariance + hparams.L2 * identity
    groups = [keys] if hparams.accumulate_keys else keys.split(hparams.batch_size, 1)
    return torch.cat([torch.linalg.solve(system + group @ group.T, group) for group in groups], 1)


@pytest.mark.parametrize("name", METHODS)
def test_spill_by_the_textbook(name, setting):
    model, tok, hparams_of = setting
    hparams, view = hparams_of(name), ModelView.of(model)
    keys = compute_keys(view, key_prompts(tok, prepare(REQUESTS), [["{}"]], "cpu"), [1, 2])
    names = name_keys(view, tok, NAMES, [1, 2], torch.float64)
    statistics = Statistics(view, tok, hparams)
    result = told(model, tok, hparams, counts=[1, 3])
    for count in (1, 3):
        energy = 0.0
        for layer in (1, 2):
            x = dense(hparams, statistics.covariance(layer).double(), keys[layer].double()[:, :count])
            energy += sum((x.T @ q).square().sum() for q in names[layer]) / len(names[layer]) / 2
        assert result.spill[count] == pytest.approx(float(energy) ** 0.5, rel=1e-3)


@pytest.mark.parametrize("name", ["memit", "alphaedit"])
def test_spill_of_an_edit_that_is_made(name, setting):
    """One edit of one layer, with the bare prompt alone as its context: |D q| / |r| at every name."""
    model, tok, hparams_of = setting
    hparams = hparams_of(name, layers=[1], context_templates=None, context_length=0)
    result = told(model, tok, hparams, REQUESTS[:1])
    names = name_keys(ModelView.of(model), tok, NAMES, [1], torch.float64)[1]
    _, _, record = apply(model, tok, REQUESTS[:1], hparams)
    delta = record.layers[1]
    moved = (names @ delta.matrix().double().T).norm(dim=1) / delta.value_factor.double().norm()
    assert list(result.spill) == [1]
    assert result.spill[1] == pytest.approx(float(moved.square().mean()) ** 0.5, rel=1e-3)


def test_edits_with_the_same_key_clash(setting):
    """Two subjects that end in the same token of the same prompt have one key."""
    model, tok, hparams_of = setting
    requests = [REQUESTS[0], REQUESTS[1], REQUESTS[0] | {"subject": REQUESTS[0]["subject"].split()[-1]}]
    assert requests[2]["subject"] != requests[0]["subject"]
    for name in ("memit", "alphaedit", "rome"):
        result = told(model, tok, hparams_of(name), requests)
        assert [(pair.first, pair.second) for pair in result.clashes][:1] == [(0, 2)]
        assert result.clashes[0].cosine == pytest.approx(1, abs=1e-4)
    same = told(model, tok, hparams_of("memit"), [REQUESTS[0], REQUESTS[0] | {"target_new": "Rome"}])
    assert same.clashes == [], "edits of one subject are no clash"


def test_the_number_of_edits_until_a_spill():
    """Between two counts the energy grows evenly: 0.5^2 lies a quarter of the way from 0.4^2 to 0.7^2 ..."""
    result = Forecast({10: 0.4, 100: 0.7}, [])
    assert result.edits_until(0.2) == 2  # 10 * 0.04 / 0.16 = 2.5, rounded to even
    assert result.edits_until(0.4) == 10
    assert result.edits_until(0.5) == round(10 + 90 * (0.25 - 0.16) / (0.49 - 0.16))
    assert result.edits_until(0.8) is None


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = make_world(tmp_path_factory.mktemp("world"))
    text = (folder / "text.txt").read_text()
    (folder / "corpus.txt").write_text(text)  # of the statistics
    return folder


def test_a_run_says_it_before_the_first_edit(world, tmp_path, capsys):
    changes = {"mom2_dataset": str(world / "names.txt")}
    (world / "names.txt").write_text(TEXT * 20, encoding="utf-8")
    options = {"method": "MEMIT", "edits": 6, "changes": changes, "quiet": False}
    start(world, tmp_path / "long", forecast_from=6, **options)
    said = capsys.readouterr().err
    assert "forecast: 6 edits change what other names give by" in said
    content = json.loads((tmp_path / "long/forecast.json").read_text())
    assert list(content["spill"]) == ["1", "3", "6"] and all(value > 0 for value in content["spill"].values())
    for first, second, cosine in content["clashes"]:
        assert 0 <= first < second < 6 and 0.8 < cosine < 1.001
    start(world, tmp_path / "short", forecast_from=7, **options)
    assert not (tmp_path / "short/forecast.json").exists() and "forecast" not in capsys.readouterr().err
    weights = [(tmp_path / name / "weights.safetensors").read_bytes() for name in ("long", "short")]
    assert weights[0] == weights[1], "it changes nothing"


def test_who_says_nothing(world, tmp_path):
    """A method that does not solve for keys, and a text without names."""
    start(world, tmp_path / "dummy", edits=4, forecast_from=2)
    (world / "small.txt").write_text("a tennis sport\nthe place where\n" * 9, encoding="utf-8")
    changes = {"mom2_dataset": str(world / "small.txt")}
    start(world, tmp_path / "nameless", method="MEMIT", edits=4, forecast_from=2, changes=changes)
    assert not any((tmp_path / name / "forecast.json").exists() for name in ("dummy", "nameless"))


def test_the_study(world, tmp_path, capsys):
    arguments = ["--model", "tiny-llama", "--data", "tiny-world", "--edits", "12", "--out", str(tmp_path)]
    assert study.main([*arguments, "--methods", "MEMIT", "AlphaEdit"]) == 0
    with open(tmp_path / "spill.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["method"] for row in rows] == ["MEMIT", "AlphaEdit"]
    assert all(float(row["1"]) < float(row["12"]) for row in rows)
    assert (tmp_path / "forecast.png").is_file() and (tmp_path / "clashes.csv").is_file()
    assert study.main([*arguments, "--methods", "FiNE"]) == 2
    assert "FiNE: does not solve for keys" in capsys.readouterr().err
