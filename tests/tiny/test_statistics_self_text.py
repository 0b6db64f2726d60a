"""Text that the model writes itself for its statistics."""

import json

import pytest
import torch

from easyedit_neuron.arch.view import ModelView
from easyedit_neuron.errors import DataError
from easyedit_neuron.statistics import self_text
from easyedit_neuron.statistics.cache import Statistics
from easyedit_neuron.statistics.covariance import covariances
from easyedit_neuron.statistics.self_text import OPENERS, TOKENS_PER_TEXT, sample_texts, write_self_text
from helpers.editing import make_hparams
from helpers.tiny_models import tiny_model


def test_texts_begin_with_the_openers_and_are_written_once(tmp_path):
    model, tok = tiny_model("llama")
    view, before = ModelView.of(model), torch.get_rng_state()
    path = write_self_text(view, tok, 70, seed=1, folder=tmp_path)
    texts = [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]
    assert len(texts) == 70 and all(
        text.startswith(OPENERS[i % len(OPENERS)]) for i, text in enumerate(texts)
    )
    assert max(len(tok(text)["input_ids"]) for text in texts) > 20, "the model writes on"
    assert torch.equal(torch.get_rng_state(), before), "the user's random numbers are the same"
    stamp = path.stat().st_mtime_ns
    assert write_self_text(view, tok, 70, 1, tmp_path) == path and path.stat().st_mtime_ns == stamp
    assert write_self_text(view, tok, 70, 2, tmp_path) != path
    again = write_self_text(view, tok, 70, 1, tmp_path / "elsewhere")
    assert again.read_bytes() == path.read_bytes(), "the seed decides"
    shorter = write_self_text(view, tok, 10, 1, tmp_path)
    assert path.read_text().startswith(shorter.read_text()), "a longer file begins with a shorter one"


def test_a_kill_loses_one_batch(tmp_path, monkeypatch):
    model, tok = tiny_model("llama")
    view, written, sample = ModelView.of(model), [], self_text.sample_texts

    def killed(*arguments):
        if len(written) == 1:
            raise KeyboardInterrupt
        written.append(1)
        return sample(*arguments)

    monkeypatch.setattr(self_text, "sample_texts", killed)
    with pytest.raises(KeyboardInterrupt):
        write_self_text(view, tok, 130, 0, tmp_path)
    monkeypatch.setattr(self_text, "sample_texts", lambda *a: written.append(1) or sample(*a))
    path = write_self_text(view, tok, 130, 0, tmp_path)
    assert len(written) == 3, "the first of three batches was not written again"
    whole = write_self_text(view, tok, 130, 0, tmp_path / "whole")
    assert path.read_bytes() == whole.read_bytes()


def test_sampling_follows_the_probabilities_of_the_model():
    """The first sampled token, over many draws, against the softmax at temperature 1."""
    model, tok = tiny_model("gpt2")
    torch.manual_seed(0)
    ids = torch.tensor([tok("The")["input_ids"]])
    with torch.no_grad():
        expected = model(ids).logits[0, -1].softmax(-1)
    width, counts = ids.shape[1], torch.zeros_like(expected)
    for _ in range(4):
        drawn = model.generate(
            input_ids=ids.repeat(500, 1),
            attention_mask=torch.ones(500, width, dtype=torch.long),
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            max_new_tokens=1,
            pad_token_id=1,
        )
        counts += torch.bincount(drawn[:, width], minlength=len(expected))
    assert float((counts / 2000 - expected).abs().sum()) < 0.45, "total variation of 2,000 draws"
    assert all(text.startswith("The") for text in sample_texts(model, tok, ["The", "The"], TOKENS_PER_TEXT))


def test_statistics_measure_the_text_that_the_model_wrote(tmp_path):
    model, tok = tiny_model("llama")
    hparams = make_hparams("AlphaEdit", tmp_path, mom2_dataset="self", mom2_n_samples=12, layers=[1])
    statistics = Statistics(ModelView.of(model), tok, hparams)
    statistics.ready()
    (file,) = tmp_path.rglob("texts-self-*.jsonl")
    texts = [json.loads(line)["text"] for line in file.read_text(encoding="utf-8").splitlines()]
    expected = covariances(ModelView.of(model), tok, texts, [1], statistics.max_length)[1]
    torch.testing.assert_close(statistics.covariance(1), expected)


def test_a_changed_file_is_refused(tmp_path):
    model, tok = tiny_model("llama")
    path = write_self_text(ModelView.of(model), tok, 5, 0, tmp_path)
    path.write_text(path.read_text() + '{"text": "Rome is in Norway."}\n')
    with pytest.raises(DataError, match="was changed since the model wrote it; delete it"):
        write_self_text(ModelView.of(model), tok, 5, 0, tmp_path)
    path.unlink()
    assert write_self_text(ModelView.of(model), tok, 5, 0, tmp_path) == path


def test_the_file_of_a_faster_process_stays(tmp_path, monkeypatch):
    """Another process publishes the same texts first and goes on reading them."""
    model, tok = tiny_model("llama")
    view, sample = ModelView.of(model), self_text.sample_texts
    first = write_self_text(view, tok, 5, 0, tmp_path / "other")

    def while_another_writes(*arguments):
        texts = sample(*arguments)
        (tmp_path / first.name).write_bytes(first.read_bytes())
        (tmp_path / first.name).touch()
        return texts

    monkeypatch.setattr(self_text, "sample_texts", while_another_writes)
    path = tmp_path / first.name
    assert write_self_text(view, tok, 5, 0, tmp_path) == path
    stamp = path.stat().st_mtime_ns
    assert not list(tmp_path.glob("*.part")) and path.read_bytes() == first.read_bytes()
    assert write_self_text(view, tok, 5, 0, tmp_path).stat().st_mtime_ns == stamp
