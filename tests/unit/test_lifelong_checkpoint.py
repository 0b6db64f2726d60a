"""States of a run that are read back."""

import torch

from easyedit_neuron.lifelong.checkpoint import StateFolder


def test_tensors_lie_as_they_did_before(tmp_path):
    """Where a matrix begins in memory decides how a product with it is rounded; in the file it may begin
    anywhere."""
    for count in range(1, 9):
        state = StateFolder(tmp_path / str(count), "run")
        tree = {f"{number:0{count}d}": torch.randn(5 + number, 3) for number in range(count)}
        state.save(tree)
        loaded = state.load()
        assert all(torch.equal(loaded[name], value) for name, value in tree.items())
        assert [tensor.data_ptr() % 64 for tensor in loaded.values()] == [0] * count


def test_what_a_killed_removal_left_is_removed(tmp_path):
    state = StateFolder(tmp_path / "state", "run")
    state.save({"a": torch.ones(3)})
    (tmp_path / "state").rename(
        tmp_path / "state.part"
    )  # killed between the rename and the end of the removal
    state.remove()
    assert not list(tmp_path.iterdir())
    state.remove()  # nothing is there
