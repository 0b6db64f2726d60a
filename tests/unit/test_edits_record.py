"""Edit records: what is saved is what is read, and nothing else is read."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import save_file

from easyedit_neuron.edits import record as record_module
from easyedit_neuron.edits.record import EditRecord, LayerDelta, UnitDelta, unit_numbers, unit_places
from easyedit_neuron.errors import StateError
from easyedit_neuron.utils import io


@pytest.fixture
def record():
    g = torch.Generator().manual_seed(0)
    mask = torch.tensor([True, False, True, False, True])
    masked = LayerDelta(
        torch.randn(3, 2, generator=g),
        torch.randn(5, 2, generator=g) * mask[:, None],
        mask,
        0.6,
        0.25,
        0.5,
        {"counts": {"selected": 3}},
    )
    plain = LayerDelta(torch.randn(3, 2, generator=g), torch.randn(5, 2, generator=g))
    return EditRecord(
        "NMKE",
        {"alg_name": "NMKE", "layers": [1, 2], "L2": 1.0},
        [{"prompt": "Østerdalen is in", "subject": "Østerdalen", "target_new": "Oslo", "ground_truth": None}],
        ["{}", "You. {}"],
        {1: masked, 2: plain},
        {1: "a.1.weight", 2: "a.2.weight"},
        [[2.0, 1.0]],
        [0.5],
        {"target": 0.1},
        "before",
        "after",
        7,
    )


def test_matrix_by_hand():
    delta = LayerDelta(torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [0.0], [5.0]]))
    assert delta.matrix().tolist() == [[3.0, 0.0, 5.0], [6.0, 0.0, 10.0]]


def test_saved_and_read_again(record, tmp_path):
    record.save(tmp_path / "edit.safetensors")
    again = EditRecord.load(tmp_path / "edit.safetensors")
    for field in dataclasses.fields(EditRecord):
        if field.name not in ("layers", "units"):
            assert getattr(again, field.name) == getattr(record, field.name), field.name
    assert list(again.layers) == [1, 2] and again.layers[2].mask is None and again.layers[2].leakage is None
    for layer, delta in record.layers.items():
        other = again.layers[layer]
        assert torch.equal(other.value_factor, delta.value_factor) and torch.equal(
            other.key_factor, delta.key_factor
        )
        assert (other.density, other.leakage, other.residual_share, other.mask_info) == (
            delta.density,
            delta.leakage,
            delta.residual_share,
            delta.mask_info,
        )
    assert (
        torch.equal(again.layers[1].mask, record.layers[1].mask) and again.layers[1].mask.dtype == torch.bool
    )
    assert again.to_json() == record.to_json()
    assert [p.name for p in tmp_path.iterdir()] == ["edit.safetensors"]


def test_json_is_plain(record):
    plain = record.to_json()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["layers"]["1"] == {
        "density": 0.6,
        "leakage": 0.25,
        "delivered": 0.5,
        "rank": 2,
        "mask": {"counts": {"selected": 3}},
    }
    assert (
        plain["names"] == {"1": "a.1.weight", "2": "a.2.weight"} and plain["format"] == record_module.FORMAT
    )


def test_a_failed_save_leaves_the_old_file(record, tmp_path, monkeypatch):
    path = tmp_path / "edit.safetensors"
    record.save(path)
    before = path.read_bytes()

    def half(tensors, name, metadata):
        with open(name, "wb") as handle:
            handle.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(io, "save_file", half)
    with pytest.raises(OSError, match="disk full"):
        record.save(path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_other_files_are_refused(record, tmp_path, monkeypatch):
    path = tmp_path / "edit.safetensors"
    with pytest.raises(StateError, match="not an edit record"):
        EditRecord.load(path)
    path.write_text("no safetensors")
    with pytest.raises(StateError, match="not an edit record"):
        EditRecord.load(path)
    save_file({"1.left": torch.ones(2)}, path)
    with pytest.raises(StateError, match="not an edit record"):
        EditRecord.load(path)
    monkeypatch.setattr(record_module, "FORMAT", 99)
    record.save(path)
    monkeypatch.undo()
    with pytest.raises(StateError, match="another format"):
        EditRecord.load(path)


def test_a_truncated_file_is_refused(record, tmp_path):
    path = tmp_path / "edit.safetensors"
    record.save(path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(StateError, match="not an edit record"):
        EditRecord.load(path)


UNITS = {
    "output": UnitDelta(
        torch.tensor([0, 2]), torch.tensor([[1.0, 2.0], [3.0, 4.0]]), "output", (3, 2), {"released": 4}
    ),
    "input": UnitDelta(torch.tensor([1]), torch.tensor([[5.0, 6.0, 7.0]]), "input", (3, 2)),
    # Two parts of two rows each: the numbers are those of rows 0, 2 (parts' first), 1, 3.
    "parts": UnitDelta(torch.tensor([1, 2]), torch.tensor([[1.0], [2.0]]), "output", (4, 1), parts=2),
}


def test_units_by_hand():
    assert (
        UNITS["output"].matrix().tolist() == [[1.0, 2.0], [0.0, 0.0], [3.0, 4.0]]
        and UNITS["output"].density == 2 / 3
    )
    assert (
        UNITS["input"].matrix().tolist() == [[0.0, 5.0], [0.0, 6.0], [0.0, 7.0]]
        and UNITS["input"].density == 0.5
    )
    assert UNITS["parts"].matrix().tolist() == [[0.0], [2.0], [1.0], [0.0]]


def test_numbers_of_rows_stay_when_the_parts_grow():
    """Rows g0 g1 g2 u0 u1 u2 become g0 g1 g2 . u0 u1 u2 . with a fourth neuron."""
    rows = torch.tensor([0, 2, 3, 5])
    numbers = unit_numbers(rows, 2, 6)
    assert numbers.tolist() == [0, 4, 1, 5]
    assert unit_places(numbers, 2, 6).tolist() == rows.tolist()
    assert unit_places(numbers, 2, 8).tolist() == [0, 2, 4, 6]
    assert torch.equal(unit_numbers(rows, 1, 6), rows) and torch.equal(unit_places(rows, 1, 9), rows)


def test_units_are_saved_and_read_again(record, tmp_path):
    both = dataclasses.replace(
        record, units={f"{name}.weight": delta for name, delta in UNITS.items()}, info={"neurons": [3]}
    )
    both.save(tmp_path / "edit.safetensors")
    again = EditRecord.load(tmp_path / "edit.safetensors")
    assert again.to_json() == both.to_json() and again.info == {"neurons": [3]}
    assert list(again.deltas) == ["a.1.weight", "a.2.weight", *both.units]
    for name, delta in both.units.items():
        other = again.units[name]
        assert torch.equal(other.units, delta.units) and torch.equal(other.vectors, delta.vectors)
        assert (other.axis, other.shape, other.info) == (delta.axis, delta.shape, delta.info)
        assert other.parts == delta.parts


@pytest.mark.parametrize("units, vectors", [([2, 0], 2), ([0, 0], 2), ([3], 1), ([-1], 1), ([0], 2), ([], 1)])
def test_units_that_are_none_are_refused(units, vectors):
    with pytest.raises(StateError, match="ascending indices below 3"):
        UnitDelta(torch.tensor(units, dtype=torch.int64), torch.ones(vectors, 2), "output", (3, 2))


@pytest.mark.parametrize("parts", [0, -1, 2])
def test_parts_that_are_none_are_refused(parts):
    with pytest.raises(StateError, match=f"3 rows are not {parts} equal parts"):
        UnitDelta(torch.tensor([0]), torch.ones(1, 2), "output", (3, 2), parts=parts)
