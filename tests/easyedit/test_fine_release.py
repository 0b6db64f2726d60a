"""The authors' own FiNE beside ours: neurons and vectors. Runs when FINE_HOME names a clone of their
repository."""

import copy
import os
from pathlib import Path

import pytest
import torch

from helpers import fine_release
from helpers.editing import REQUESTS
from helpers.fine_edits import chosen, edit, fine, largest_relative_difference, summed, written
from helpers.tiny_models import tiny_model

HOME = os.environ.get("FINE_HOME")
pytestmark = pytest.mark.skipif(
    not HOME, reason="the authors' FiNE is not here: set FINE_HOME to a clone of github.com/opanhw/FiNE"
)


@pytest.fixture(scope="module")
def released():
    return fine_release.load(Path(HOME))


def both(released, monkeypatch, model_type, request, hparams, vectors):
    """(neurons and columns of theirs, our record)."""
    model, tok = tiny_model(model_type)
    record = edit(copy.deepcopy(model), tok, hparams, [request])
    with monkeypatch.context() as patched:
        fine_release.on_the_cpu(patched, vectors)
        neurons, vectors = fine_release.run(released, model, model_type, tok, request, hparams)
    return neurons, summed(neurons, vectors.float()), record


@pytest.mark.parametrize("model_type", ["llama", "gptj"])
@pytest.mark.parametrize("request_", REQUESTS, ids=lambda r: r["subject"])
def test_same_neurons_and_vectors(released, monkeypatch, model_type, request_):
    hparams = fine(epochs=10, early_stop_prob=0.9)
    neurons, columns, record = both(released, monkeypatch, model_type, request_, hparams, torch.float32)
    assert chosen(record) == neurons and record.info["requests"][0]["steps"] == 10
    assert largest_relative_difference(written(record), columns) < 1e-3


@pytest.mark.parametrize("model_type", ["llama", "gptj"])
def test_their_bfloat16_vectors(released, monkeypatch, model_type):
    """bfloat16 has a relative precision of 4e-3; rounding feeds on itself from step to step."""
    for epochs, limit in ((1, 4e-3), (4, 0.1)):
        hparams = fine(epochs=epochs, vector_dtype="bfloat16", lr=0.01)
        neurons, columns, record = both(
            released, monkeypatch, model_type, REQUESTS[0], hparams, torch.bfloat16
        )
        assert chosen(record) == neurons and largest_relative_difference(written(record), columns) < limit


def test_an_early_stop(released, monkeypatch):
    hparams = fine(epochs=30, lr=0.05, alpha=0.05, gamma=0.01, early_stop_prob=0.01)
    neurons, columns, record = both(released, monkeypatch, "llama", REQUESTS[0], hparams, torch.float32)
    assert (
        record.info["requests"][0]["stop"] == "early_stop_prob"
        and 1 < record.info["requests"][0]["steps"] < 30
    )
    assert chosen(record) == neurons and largest_relative_difference(written(record), columns) < 1e-3
