"""Statistics on disk: every input is in the key, nothing is measured twice, and a wrong file is never
used."""

import gc
import shutil
import weakref

import pytest
import torch
from safetensors.torch import load_file, save_file

from easyedit_neuron.arch.view import ModelView
from easyedit_neuron.errors import StateError
from easyedit_neuron.statistics import cache as cache_module
from easyedit_neuron.statistics.cache import Statistics
from easyedit_neuron.utils import io
from helpers.editing import make_hparams
from helpers.tiny_models import tiny_model, tiny_tokenizer


@pytest.fixture
def llama():
    return tiny_model("llama")


def measure(model, tok, hparams, threshold=0.5):
    statistics = Statistics(ModelView.of(model), tok, hparams)
    return statistics.covariance(1), statistics.null_space(1, threshold)


def files(folder):
    return sorted((folder / "stats").iterdir())


def test_the_second_use_measures_nothing_and_gives_the_same_bits(llama, tmp_path, monkeypatch):
    hparams = make_hparams("AlphaEdit", tmp_path)
    cov, space = measure(*llama, hparams)
    names = ["covariance-layer1", "covariance-layer2", "nullspace-layer1"]
    assert [p.name.rpartition("-")[0] for p in files(tmp_path)] == names
    before = {p: p.read_bytes() for p in files(tmp_path)}
    monkeypatch.setattr(cache_module, "covariances", None)
    monkeypatch.setattr(cache_module, "null_space", None)
    again, space_again = measure(*llama, hparams)
    assert (
        torch.equal(cov, again)
        and torch.equal(space.basis, space_again.basis)
        and space.complement == space_again.complement
    )
    assert {p: p.read_bytes() for p in files(tmp_path)} == before


def test_a_first_pass_measures_all_layers_at_once(llama, tmp_path, monkeypatch):
    calls = []
    plain = cache_module.covariances
    monkeypatch.setattr(
        cache_module,
        "covariances",
        lambda view, tok, texts, layers, *rest, **more: (
            calls.append(layers) or plain(view, tok, texts, layers, *rest, **more)
        ),
    )
    statistics = Statistics(ModelView.of(llama[0]), llama[1], make_hparams("AlphaEdit", tmp_path))
    statistics.covariance(2), statistics.covariance(1), statistics.null_space(2, 0.1)
    assert calls == [[1, 2]]


def test_every_input_is_in_the_key(llama, tmp_path):
    model, tok = llama
    hparams = make_hparams("AlphaEdit", tmp_path)
    other_text = tmp_path / "other.txt"
    other_text.write_text("Anna Berg lives in Rome.")
    changed_model, _ = tiny_model("llama", seed=1)
    rope = {"rope_type": "default", "rope_theta": 100.0}
    other_theta, _ = tiny_model("llama", rope_parameters=rope, rope_theta=100.0)  # of transformers 5, and 4
    measure(model, tok, hparams)
    assert len(files(tmp_path)) == 3
    for number, (m, t, h, threshold) in enumerate(
        [
            (model, tok, hparams.override({"mom2_dataset": str(other_text)}), 0.5),
            (model, tok, hparams.override({"mom2_dtype": "float64"}), 0.5),
            (model, tok, hparams.override({"mom2_max_length": 5}), 0.5),
            (model, tok, hparams.override({"mom2_n_samples": 2}), 0.5),
            (model, tok, hparams.override({"mom2_cut": True}), 0.5),
            (changed_model, tok, hparams, 0.5),
            (other_theta, tok, hparams, 0.5),
            (model, tiny_tokenizer(bos=False), hparams, 0.5),
        ],
        2,
    ):
        measure(m, t, h, threshold)
        assert len(files(tmp_path)) == 3 * number
    measure(model, tok, hparams, threshold=0.1)
    more_layers = hparams.override({"L2": 5.0, "layers": [1, 2, 3]})
    measure(model, tok, more_layers)
    assert len(files(tmp_path)) == 3 * number + 1
    Statistics(ModelView.of(model), tok, more_layers).covariance(3)
    assert len(files(tmp_path)) == 3 * number + 2


def test_a_file_of_another_setting_is_refused(llama, tmp_path):
    hparams = make_hparams("AlphaEdit", tmp_path)
    measure(*llama, hparams)
    first = files(tmp_path)
    measure(*llama, hparams.override({"mom2_max_length": 5}))
    other_setting = [p for p in files(tmp_path) if p not in first]
    shutil.copy(other_setting[0], first[0])
    with pytest.raises(StateError, match=r"was made from .*'max_length': 5.*delete it"):
        measure(*llama, hparams)


@pytest.mark.parametrize("damage", ["truncated", "text", "without key", "empty"])
def test_a_damaged_or_foreign_file_is_refused(llama, tmp_path, damage):
    hparams = make_hparams("AlphaEdit", tmp_path)
    measure(*llama, hparams)
    path = files(tmp_path)[0]
    if damage == "without key":
        save_file(load_file(path), path)
    else:
        path.write_bytes(
            {"truncated": path.read_bytes()[:-100], "text": b"no safetensors", "empty": b""}[damage]
        )
    with pytest.raises(StateError, match=f"{path.name}.*delete it"):
        measure(*llama, hparams)


def test_a_failed_write_leaves_nothing(llama, tmp_path, monkeypatch):
    def half(tensors, name, metadata):
        with open(name, "wb") as handle:
            handle.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(io, "save_file", half)
    with pytest.raises(StateError, match="disk full.*stats_dir"):
        measure(*llama, make_hparams("AlphaEdit", tmp_path))
    assert files(tmp_path) == []


def test_long_texts_are_cut_where_the_model_ends(tmp_path):
    model, tok = tiny_model("gpt2", n_positions=8)
    cov, _ = measure(model, tok, make_hparams("AlphaEdit", tmp_path))
    assert torch.isfinite(cov).all()


def test_statistics_do_not_keep_the_model_alive(tmp_path):
    model, tok = tiny_model("gpt2")
    statistics = Statistics(ModelView.of(model), tok, make_hparams("AlphaEdit", tmp_path))
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None
    with pytest.raises(StateError, match="no longer exists"):
        statistics.covariance(1)


def test_a_file_whose_numbers_have_changed_is_refused(llama, tmp_path):
    """Ten times the covariance gives other weights; a file of a version without digests is measured anew."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    hparams = make_hparams("AlphaEdit", tmp_path)

    def statistics():
        return Statistics(ModelView.of(llama[0]), llama[1], hparams)

    expected = statistics().covariance(1)
    (path,) = (tmp_path / "stats").glob("covariance-layer1-*.safetensors")
    with safe_open(path, "pt") as file:
        about, matrix = file.metadata(), file.get_tensor("covariance").clone()
    save_file({"covariance": 10 * matrix}, path, metadata=about)
    with pytest.raises(StateError, match="its numbers have changed since it was written.*delete it"):
        statistics().covariance(1)
    earlier = {name: value for name, value in about.items() if name != "digest"}
    save_file({"covariance": 10 * matrix}, path, metadata=earlier)
    assert torch.equal(statistics().covariance(1), expected)
