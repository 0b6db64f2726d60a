"""mom2_cut against EasyEdit's own measurement of the covariance, on the same documents."""

import importlib
import random
from types import SimpleNamespace

import torch

from easyedit_neuron.arch.view import ModelView
from easyedit_neuron.statistics.covariance import covariances
from helpers.tiny_models import tiny_model

WORDS = ["Anna", "Berg", "Paris", "lives", "in", "Rome", "plays", "tennis", "the", "capital", "of", "London"]


def test_texts_cut_at_the_context_length_give_easyedits_covariance(easyeditor, tmp_path, monkeypatch):
    module = importlib.import_module("easyeditor.models.rome.layer_stats")
    model, tok = tiny_model("llama", max_position_embeddings=32)
    draw = random.Random(0)
    texts = [" ".join(draw.choices(WORDS, k=draw.randint(3, 60))) + "." for _ in range(40)]
    lengths = [len(tok(text)["input_ids"]) for text in texts]
    assert min(lengths) < 32 < max(lengths)
    documents = [{"text": text} for text in texts]
    monkeypatch.setattr(module, "load_dataset", lambda *a: {"train": documents})
    name = "model.layers.1.mlp.down_proj"
    options = {"sample_size": len(texts), "precision": "float64", "hparams": SimpleNamespace(device="cpu")}
    theirs = module.layer_stats(model, tok, name, str(tmp_path), "wikipedia", ["mom2"], "m", **options)
    ours = covariances(ModelView.of(model), tok, texts, [1], 32, torch.float64, cut=True)[1]
    torch.testing.assert_close(ours, theirs.mom2.moment().double(), rtol=1e-5, atol=1e-7)
    split = covariances(ModelView.of(model), tok, texts, [1], 32, torch.float64)[1]
    assert float((split - ours).norm() / ours.norm()) > 1e-3
