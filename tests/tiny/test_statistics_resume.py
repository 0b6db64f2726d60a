"""An interrupted measurement goes on where it was last saved, and ends with the same bits."""

import functools
import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from easyedit_neuron.arch.view import ModelView
from easyedit_neuron.errors import DataError, StateError
from easyedit_neuron.statistics import cache as cache_module
from easyedit_neuron.statistics import matrix_files
from easyedit_neuron.statistics.cache import Statistics
from easyedit_neuron.statistics.covariance import covariances
from easyedit_neuron.statistics.matrix_files import UnfinishedSums
from easyedit_neuron.utils import io
from helpers.editing import make_hparams
from helpers.tiny_models import CORPUS, tiny_model

TEXTS = (CORPUS + ["Oslo is", "Anna Berg"]) * 3
PROVENANCE = {"model": "tiny", "layers": [1, 2]}


class Interrupted(Exception):
    pass


def interrupted(model, forwards, run):
    """``run()``, during which the model's forward raises once it has run ``forwards`` times."""
    count = 0

    def check(*_):
        nonlocal count
        count += 1
        if count > forwards:
            raise Interrupted

    handle = model.register_forward_pre_hook(check)
    with pytest.raises(Interrupted):
        run()
    handle.remove()


def measure(model, tok, path=None, dtype=torch.float32, texts=TEXTS):
    """Twelve windows of one or two texts; saved after each."""
    unfinished = None if path is None else UnfinishedSums(path, PROVENANCE, save_seconds=0)
    return covariances(ModelView.of(model), tok, texts, [1, 2], 10, dtype, 30, unfinished, window=60)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("forwards", [[0], [1], [4], [9], [3, 2, 0, 5]])
def test_the_same_bits_wherever_it_was_interrupted(tmp_path, forwards, dtype):
    model, tok = tiny_model("llama")
    whole = measure(model, tok, dtype=dtype)
    path = tmp_path / "sums.partial"
    for count in forwards:
        interrupted(model, count, lambda: measure(model, tok, path, dtype))
    read = []
    continued = measure(model, tok, path, dtype, texts=(read.append(text) or text for text in TEXTS))
    assert all(torch.equal(continued[layer], whole[layer]) for layer in (1, 2)) and read == TEXTS


def test_what_was_measured_is_not_measured_again(tmp_path):
    model, tok = tiny_model("llama")
    ran = []
    model.register_forward_pre_hook(lambda *_: ran.append(1))
    measure(model, tok)
    total = len(ran)
    interrupted(model, total - 2, lambda: measure(model, tok, tmp_path / "sums.partial"))
    ran.clear()
    measure(model, tok, tmp_path / "sums.partial")
    assert 2 <= len(ran) <= 6


def test_the_file_says_where_it_stands(tmp_path):
    model, tok = tiny_model("llama")
    path = tmp_path / "sums.partial"
    interrupted(model, 5, lambda: measure(model, tok, path))
    with safe_open(path, "pt") as stored:
        metadata = stored.metadata()
    position = json.loads(metadata["position"])
    assert json.loads(metadata["about"]) == PROVENANCE
    assert position["tokens"] == sum(len(tok(text)["input_ids"]) for text in TEXTS[: position["texts"]])
    assert 0 < position["texts"] < len(TEXTS) and position["tokens_per_batch"] == 30


def test_batches_that_were_too_large_are_remembered(tmp_path):
    model, tok = tiny_model("llama")
    path, shapes = tmp_path / "sums.partial", []

    def check(_module, _args, kwargs):
        shapes.append(kwargs["input_ids"].numel())
        if shapes[-1] > 12:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        if len(shapes) == 20:
            raise Interrupted

    model.register_forward_pre_hook(check, with_kwargs=True)
    with pytest.raises(Interrupted):
        measure(model, tok, path)
    begun = len(shapes)
    measure(model, tok, path)
    assert max(shapes[:begun]) > 12 >= max(shapes[begun:])


def test_it_is_saved_no_oftener_than_asked(tmp_path, monkeypatch):
    model, tok = tiny_model("llama")
    clock, writes = [0.0], []
    monkeypatch.setattr(matrix_files.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(matrix_files, "write", lambda *args, **more: writes.append(clock[0]))
    model.register_forward_pre_hook(
        lambda *_: clock.__setitem__(0, clock[0] + 1)
    )  # a text is a forward and a second
    covariances(
        ModelView.of(model),
        tok,
        TEXTS,
        [1, 2],
        99,
        torch.float32,
        8192,
        UnfinishedSums(tmp_path / "x", PROVENANCE, 3),
        window=1,
    )
    assert writes == [3, 6, 9, 12, 15, 18]


def damaged(path, damage):
    if damage == "foreign":
        tensors = load_file(path)
        save_file(tensors, path, {"about": json.dumps({**PROVENANCE, "model": "other"}), "position": "{}"})
    elif damage == "without position":
        with safe_open(path, "pt") as stored:
            metadata = {name: value for name, value in stored.metadata().items() if name != "position"}
        save_file(load_file(path), path, metadata)
    elif damage == "a changed number":
        with safe_open(path, "pt") as stored:
            metadata = stored.metadata()
        tensors = load_file(path)
        tensors["layer1"][0, 0] += 1
        save_file(tensors, path, metadata)
    elif damage == "without a layer":
        with safe_open(path, "pt") as stored:
            metadata = stored.metadata()
        save_file({"layer1": load_file(path)["layer1"]}, path, metadata)
    else:
        path.write_bytes(
            {"truncated": path.read_bytes()[:-50], "text": b"no safetensors", "empty": b""}[damage]
        )
    return path.read_bytes()


@pytest.mark.parametrize(
    "damage",
    ["foreign", "without position", "a changed number", "without a layer", "truncated", "text", "empty"],
)
def test_a_damaged_or_foreign_file_is_refused_and_left_alone(tmp_path, damage):
    model, tok = tiny_model("llama")
    path = tmp_path / "sums.partial"
    interrupted(model, 5, lambda: measure(model, tok, path))
    content = damaged(path, damage)
    with pytest.raises(StateError, match="sums.partial.*delete it to measure anew"):
        measure(model, tok, path)
    assert path.read_bytes() == content


def test_a_failed_write_keeps_the_last_good_file(tmp_path, monkeypatch):
    model, tok = tiny_model("llama")
    whole, path, plain = measure(model, tok), tmp_path / "sums.partial", io.save_file
    calls = []

    def full(tensors, name, metadata):
        calls.append(name)
        if len(calls) == 3:
            with open(name, "wb") as file:
                file.write(b"half")
            raise OSError("disk full")
        plain(tensors, name, metadata=metadata)

    monkeypatch.setattr(io, "save_file", full)
    with pytest.raises(StateError, match="disk full.*stats_dir"):
        measure(model, tok, path)
    assert [p.name for p in tmp_path.iterdir()] == ["sums.partial"]
    continued = measure(model, tok, path)
    assert all(torch.equal(continued[layer], whole[layer]) for layer in (1, 2))


@pytest.fixture
def eager(monkeypatch):
    """Statistics in small windows, saved after each."""
    monkeypatch.setattr(matrix_files, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(cache_module, "covariances", functools.partial(covariances, window=60))


def names(folder):
    return sorted(path.name.rpartition("-")[0] + path.suffix for path in (folder / "stats").iterdir())


def statistics(model, tok, folder):
    return Statistics(ModelView.of(model), tok, make_hparams("AlphaEdit", folder, layers=[0, 1, 2]))


def test_statistics_go_on_and_clear_up(tmp_path, eager):
    model, tok = tiny_model("llama")
    (tmp_path / "whole").mkdir(), (tmp_path / "parts").mkdir()
    whole = statistics(model, tok, tmp_path / "whole").covariance(2)
    interrupted(model, 2, lambda: statistics(model, tok, tmp_path / "parts").covariance(2))
    assert names(tmp_path / "parts") == ["covariance-layers0-2.partial"]
    continued = statistics(model, tok, tmp_path / "parts")
    assert torch.equal(continued.covariance(2), whole)
    assert names(tmp_path / "parts") == [f"covariance-layer{layer}.safetensors" for layer in (0, 1, 2)]


def test_another_setting_does_not_see_the_unfinished_file(tmp_path, eager):
    model, tok = tiny_model("llama")
    interrupted(model, 2, lambda: statistics(model, tok, tmp_path).covariance(2))
    (before,) = (path.read_bytes() for path in (tmp_path / "stats").iterdir())
    Statistics(
        ModelView.of(model), tok, make_hparams("AlphaEdit", tmp_path, layers=[0, 1, 2], mom2_max_length=5)
    ).covariance(1)
    assert [p.read_bytes() for p in (tmp_path / "stats").glob("*.partial")] == [before]


def test_text_that_changes_under_way_gives_no_result(tmp_path, eager, monkeypatch):
    model, tok = tiny_model("llama")
    own_statistics = statistics(model, tok, tmp_path)
    # between the first reading of the text and its measurement
    monkeypatch.setattr(
        cache_module, "model_fingerprint", lambda _: (tmp_path / "corpus.txt").write_text("Something else.")
    )
    with pytest.raises(DataError, match="corpus.txt.* was changed"):
        own_statistics.covariance(1)
    assert list((tmp_path / "stats").iterdir()) == []


def test_a_layer_that_is_none_of_these(tmp_path):
    model, tok = tiny_model("llama")
    with pytest.raises(StateError, match=r"layer 3 is not among the layers \[0, 1, 2\]"):
        statistics(model, tok, tmp_path).covariance(3)
