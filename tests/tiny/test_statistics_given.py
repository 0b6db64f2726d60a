"""Covariances and projections that the user brings: the same edits as with those that were measured."""

import numpy
import pytest
import torch
from safetensors.torch import save_file

from easyedit_neuron.arch.view import ModelView
from easyedit_neuron.errors import HparamsError, StateError, StatisticsError
from easyedit_neuron.locate_then_edit.sequential_state import saved_session
from easyedit_neuron.statistics.cache import Statistics
from easyedit_neuron.statistics.given import covariance_file, projection_file
from helpers.editing import REQUESTS, apply, changed_tensors, make_hparams, snapshot
from helpers.tiny_models import tiny_model


def measured(folder, method="AlphaEdit"):
    """(hyperparameters, layer -> C) of the tiny model's own statistics."""
    model, tok = tiny_model("llama", seed=3)
    hparams = make_hparams(method, folder)
    statistics = Statistics(ModelView.of(model), tok, hparams)
    return hparams, {layer: statistics.covariance(layer) for layer in hparams.layers}


def edited(hparams):
    model, tok = tiny_model("llama", seed=3)
    apply(model, tok, REQUESTS[:1], hparams)
    return snapshot(model), model


def write_npz(folder, matrices, count=7.0):
    """As EasyEdit's running sums: the sum, and the number of tokens."""
    for layer, matrix in matrices.items():
        arrays = {"mom2.mom2": (count * matrix).numpy(), "mom2.count": numpy.array(count)}
        arrays |= {"mom2.constructor": numpy.array("SecondMoment()"), "sample_size": numpy.array(10)}
        numpy.savez(folder / f"model.layers.{layer}.mlp.down_proj_float32_mom2_10.npz", **arrays)
    return str(folder / "model.layers.{}.mlp.down_proj_float32_mom2_10.npz")


@pytest.mark.parametrize("method", ["AlphaEdit", "MEMIT", "ROME"])
@pytest.mark.parametrize("form", ["npz", "safetensors"])
def test_an_edit_with_a_given_covariance_is_the_same(method, form, tmp_path):
    hparams, matrices = measured(tmp_path, method)
    if form == "npz":
        template = write_npz(tmp_path, matrices)
    else:
        for layer, matrix in matrices.items():
            save_file({"C": matrix.contiguous()}, tmp_path / f"{layer}.safetensors")
        template = str(tmp_path / "{}.safetensors")
    given = hparams.override({"mom2_file": template, "mom2_dataset": str(tmp_path / "corpus.txt")})
    own, other = edited(hparams)[0], edited(given)[0]
    for name in own:
        torch.testing.assert_close(other[name], own[name], rtol=1e-3, atol=1e-5)


def test_an_edit_with_a_given_projection_is_the_same(tmp_path):
    hparams, matrices = measured(tmp_path)
    values = {layer: torch.linalg.eigh(matrix) for layer, matrix in matrices.items()}
    small = {layer: vectors[:, size < 0.5] for layer, (size, vectors) in values.items()}
    torch.save(torch.stack([basis @ basis.T for basis in small.values()]), tmp_path / "null_space_project.pt")
    given = hparams.override({"nullspace_file": str(tmp_path / "null_space_project.pt")})
    own, other = edited(hparams)[0], edited(given)[0]
    for name in own:
        torch.testing.assert_close(other[name], own[name], rtol=1e-3, atol=1e-5)
    assert changed_tensors(tiny_model("llama", seed=3)[0], own)


def test_another_file_cannot_be_slipped_under_earlier_edits(tmp_path):
    hparams, matrices = measured(tmp_path)
    template = write_npz(tmp_path, matrices)
    given = hparams.override({"mom2_file": template})
    _, model = edited(given)
    held = next(iter(saved_session(model)["sequential"].values()))["statistics"]
    fresh = tiny_model("llama", seed=3)
    Statistics(ModelView.of(fresh[0]), fresh[1], given).hold(held)
    write_npz(tmp_path, {layer: 2 * matrix for layer, matrix in matrices.items()})
    with pytest.raises(StateError, match="hold other numbers"):
        Statistics(ModelView.of(fresh[0]), fresh[1], given).hold(held)


def test_a_projection_is_taken_apart(tmp_path):
    """P = I - v v^T with v = (0.6, 0.8, 0): its complement is v."""
    v = torch.tensor([0.6, 0.8, 0.0])
    torch.save((torch.eye(3) - torch.outer(v, v))[None], tmp_path / "P.pt")
    space = projection_file(str(tmp_path / "P.pt"), 0, 1, 3)
    assert space.complement and space.dim == 2
    x = torch.tensor([[1.0], [0.0], [2.0]])
    torch.testing.assert_close(space.project(x), torch.tensor([[0.64], [-0.48], [2.0]]))


@pytest.mark.parametrize(
    "content, said",
    [
        (torch.eye(4), r"holds \[4, 4\] where \[3, 3\]"),
        (torch.full((3, 3), float("nan")), "not finite"),
        (torch.arange(9.0).reshape(3, 3), "not symmetric"),
        (torch.ones(3, 3, dtype=torch.int64), "where"),
        ({"a": torch.eye(3), "b": torch.eye(3)}, "no single matrix"),
    ],
)
def test_what_is_no_covariance_is_refused(content, said, tmp_path):
    save_file(content if isinstance(content, dict) else {"C": content}, tmp_path / "2.safetensors")
    with pytest.raises(StatisticsError, match=f"mom2_file.*{said}"):
        covariance_file(str(tmp_path / "{}.safetensors"), 2, 3)


def test_damaged_and_hostile_files_are_refused(tmp_path):
    (tmp_path / "1.npz").write_bytes(b"PK not a file")
    with pytest.raises(StatisticsError, match="cannot be read"):
        covariance_file(str(tmp_path / "{}.npz"), 1, 3)
    numpy.savez(tmp_path / "2.npz", **{"mom2.mom2": numpy.array([object()]), "mom2.count": 1})
    with pytest.raises(StatisticsError, match="cannot be read"):
        covariance_file(str(tmp_path / "{}.npz"), 2, 3)
    torch.save(print, tmp_path / "3.pt")  # runs code when it is loaded without weights_only
    with pytest.raises(StatisticsError, match="cannot be read"):
        projection_file(str(tmp_path / "3.pt"), 0, 1, 3)
    torch.save(torch.eye(3)[None] * 0.5, tmp_path / "4.pt")
    with pytest.raises(StatisticsError, match="is no projection"):
        projection_file(str(tmp_path / "4.pt"), 0, 1, 3)
    with pytest.raises(StatisticsError, match=r"holds \[1, 3, 3\], not a tensor \[2, 3, 3\]"):
        projection_file(str(tmp_path / "4.pt"), 0, 2, 3)
    with pytest.raises(StatisticsError, match="no such file"):
        covariance_file(str(tmp_path / "{}.npz"), 9, 3)


def test_hyperparameters(tmp_path):
    with pytest.raises(HparamsError, match="'mom2_file': must hold '{}' once"):
        make_hparams("MEMIT", tmp_path, mom2_file="C.npz")
    with pytest.raises(HparamsError, match="'nullspace_file': is for the alphaedit path"):
        make_hparams("MEMIT", tmp_path, nullspace_file="P.pt")
    with pytest.raises(HparamsError, match="'mom2_file': there is no file"):
        make_hparams("MEMIT", tmp_path, mom2_file=str(tmp_path / "{}.npz")).check_inputs()
