"""Scores that all edits share: taken once from the unedited model, cached, carried on over edits and
copies."""

import json

import pytest
import torch

from easyedit_neuron.arch import ModelView
from easyedit_neuron.attribution import target_tokens
from easyedit_neuron.edits import session as state
from easyedit_neuron.errors import HparamsError, RequestError, StateError
from easyedit_neuron.models.kne import shared
from easyedit_neuron.models.kne.kne_main import apply_kne_to_model
from easyedit_neuron.models.kne.shared import localize_shared, sites_of
from helpers.editing import REQUESTS, put_back
from helpers.kne_cases import attributions, kne_hparams
from helpers.tiny_models import tiny_model


@pytest.fixture
def hparams(tmp_path):
    return kne_hparams(
        localize="shared", localization_set_size=2, stats_dir=str(tmp_path / "stats"), num_steps=2
    )


@pytest.fixture
def counted(monkeypatch):
    """How often scores are really computed."""
    calls, plain = [], shared.mean_attributions
    monkeypatch.setattr(
        shared, "mean_attributions", lambda *args, **options: calls.append(1) or plain(*args, **options)
    )
    return calls


def edit(model, tok, request, hparams, **options):
    records = []
    edited, weights = apply_kne_to_model(model, tok, [request], hparams, records=records, **options)
    return edited, weights, records[0]


def neurons(record):
    return {name: delta.units.tolist() for name, delta in record.units.items()}


def test_scores_are_the_mean_over_the_first_requests_and_outlive_edits_and_copies(hparams, counted):
    model, tok = tiny_model("llama")
    view = ModelView.of(model)
    localized = localize_shared(model, tok, REQUESTS, hparams)
    targets = target_tokens(tok, [r["prompt"] for r in REQUESTS[:2]], [r["target_new"] for r in REQUESTS[:2]])
    expected = attributions(view, targets, sites_of(view, hparams), attribution_steps=5)
    assert localized.requests == 2 and all(
        torch.equal(localized.scores[key], expected[key]) for key in expected
    )
    records = [edit(model, tok, request, hparams, return_orig_weights=True) for request in REQUESTS]
    twin, _, copied = edit(model, tok, REQUESTS[0], hparams, copy=True)
    put_back(model, records[2][1])
    _, _, after = edit(model, tok, REQUESTS[1], hparams)
    assert all(
        neurons(r) == neurons(records[0][2]) for r in (copied, after, *(record for _, _, record in records))
    )
    assert after.info["localized_on"] == {"requests": 2, "model": localized.model} and len(counted) == 1
    assert (
        edit(twin, tok, REQUESTS[2], hparams)[2].info["localized_on"] == copied.info["localized_on"]
        and len(counted) == 1
    )


def test_another_process_reads_the_scores_of_the_same_model_and_settings(hparams, counted, tmp_path):
    def again(requests=REQUESTS, seed=0, **changes):
        model, tok = tiny_model("llama", seed)
        return localize_shared(model, tok, requests, hparams.override(changes))

    first = again()
    assert (
        all(torch.equal(first.scores[key], value) for key, value in again(step_batch=3).scores.items())
        and len(counted) == 1
    )
    others = [
        {"seed": 1},
        {"attribution_steps": 6},
        {"layers": [1]},
        {"requests": REQUESTS[1:]},
        {"neuron_axis": "input"},
    ]
    for number, changes in enumerate(others, 2):
        again(**changes)
        assert len(counted) == number


def test_a_damaged_cache_file_is_not_measured_over(hparams, tmp_path):
    model, tok = tiny_model("llama")
    localize_shared(model, tok, REQUESTS, hparams)
    (path,) = (tmp_path / "stats").glob("kne-scores-*.safetensors")
    path.write_bytes(b"broken")
    with pytest.raises(StateError, match="not a readable statistics file"):
        localize_shared(model, tok, REQUESTS, hparams)


def test_localization_data(hparams, tmp_path, counted, caplog):
    path = tmp_path / "edits.json"
    path.write_text(
        json.dumps(
            [
                {
                    "prompt": r["prompt"],
                    "subject": r["subject"],
                    "target_new": r["target_new"],
                    "ground_truth": r["ground_truth"],
                }
                for r in REQUESTS
            ]
        )
    )
    model, tok = tiny_model("llama")
    named = hparams.override({"localization_data": str(path)})
    records = [edit(model, tok, request, named)[2] for request in REQUESTS]
    assert len(counted) == 1 and neurons(records[0]) == neurons(records[2])
    other, _ = tiny_model("llama")
    localize_shared(other, tok, REQUESTS, hparams)
    assert neurons(edit(other, tok, REQUESTS[0], hparams)[2]) == neurons(records[0]) and len(counted) == 1
    edit(model, tok, REQUESTS[0], named.override({"localization_set_size": 7}))
    assert "shared among 3 requests, localization_set_size asks for 7" in caplog.text


def test_without_scores(hparams):
    model, tok = tiny_model("llama")
    with pytest.raises(HparamsError, match="'localization_data'.*localize_shared"):
        edit(model, tok, REQUESTS[0], hparams)
    with pytest.raises(RequestError):
        localize_shared(model, tok, [{"prompt": "x"}], hparams)
    localize_shared(model, tok, REQUESTS, hparams)
    with pytest.raises(HparamsError, match="'localization_data'"):
        edit(model, tok, REQUESTS[0], hparams.override({"attribution_steps": 9}))
    state.forget(model)
    with pytest.raises(HparamsError, match="'localization_data'"):
        edit(model, tok, REQUESTS[0], hparams)
