"""The log on disk: what is written is what is read; what was torn is left out, what was changed is
refused."""

import dataclasses
import json
import logging

import pytest
import torch

from easyedit_neuron.editlog import EditLog
from easyedit_neuron.edits.record import EditRecord, LayerDelta, UnitDelta
from easyedit_neuron.errors import StateError

NAME, OTHER = "m.1.weight", "m.2.weight"


def make(number, before, after, base="w0", **changes):
    g = torch.Generator().manual_seed(number)
    delta = LayerDelta(
        torch.randn(3, 1, generator=g), torch.randn(4, 1, generator=g), keys=torch.randn(4, 1, generator=g)
    )
    weights = {NAME: {"dtype": "float32", "shape": [3, 4], "base": base, "before": before, "after": after}}
    fields = dict(
        method="MEMIT",
        hparams={"alg_name": "MEMIT", "model_name": "some-model"},
        requests=[
            {"prompt": f"Østerdalen {number} is in", "subject": f"Østerdalen {number}", "target_new": "Oslo"}
        ],
        contexts=["{}"],
        layers={1: delta},
        names={1: NAME},
        losses=[[1.0]],
        probability=[0.5],
        seconds={"target": 0.1},
        fingerprint_before=before,
        fingerprint_after=after,
        seed=0,
        weights=weights,
    )
    return EditRecord(**{**fields, **changes})


@pytest.fixture
def log(tmp_path):
    log = EditLog(tmp_path / "log", fingerprint="whole")
    for number in (1, 2, 3):
        assert log.append(make(number, f"w{number - 1}", f"w{number}")) == number
    return log


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_read_again(log):
    again = EditLog(log.folder)
    again.verify()
    assert again.ids == [1, 2, 3] and len(again) == 3 and again.entries == log.entries
    for number, record in zip((1, 2, 3), again):
        expected = make(number, f"w{number - 1}", f"w{number}")
        assert record.to_json() == expected.to_json()
        for side in ("value_factor", "key_factor", "keys"):
            assert torch.equal(getattr(record.layers[1], side), getattr(expected.layers[1], side))
    assert again.base.name == "some-model" and again.base.fingerprint == "whole"
    assert again.base.weights == {NAME: {"fingerprint": "w0", "dtype": "float32", "shape": [3, 4]}}
    assert [again.weights_at(n) for n in (0, 2, None)] == [{NAME: "w0"}, {NAME: "w2"}, {NAME: "w3"}]
    change = again.entries[0]["changes"][NAME]
    assert change["rank"] == 1 and change["norm"] == pytest.approx(
        float(make(1, "", "").layers[1].matrix().norm()), rel=1e-6
    )


def test_taken_back_made_again_and_put_back(log):
    assert log.append_event("undo", {NAME: "w4"}, of=2) == 4
    assert log.ids == [1, 3] and [r.requests[0]["subject"][-1] for r in log] == ["1", "3"]
    log.append_event("redo", {NAME: "w5"}, of=2)
    assert log.ids == [1, 3, 2] and log.steps() == [(1, 1), (1, 2), (1, 3), (-1, 2), (1, 2)]
    log.append_event("restore", {NAME: "w1"}, to=1)
    log.append(make(9, "w1", "w6"))
    again = EditLog(log.folder)
    assert (
        again.ids == [1, 7]
        and again.steps() == [(1, 1), (1, 7)]
        and again.ids_at(4) == [1, 3]
        and again.ids_at(0) == []
    )
    assert again[2].requests[0]["subject"] == "Østerdalen 2"
    for number, reason in (
        (4, "no edit but of type undo"),
        (0, "there is no edit 0"),
        (8, "there is no edit 8; the edits are 1, 2, 3, 7"),
    ):
        with pytest.raises(StateError, match=reason):
            again[number]


@pytest.mark.parametrize(
    "torn", [b'{"id": 4, "ty', b'{"id": 4, "type": "edit"}', b"\x00\x00\n", b'{"id": 4}\n']
)
def test_a_torn_last_line_is_left_out_and_overwritten(log, torn, caplog):
    path = log.folder / "entries.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    with caplog.at_level(logging.WARNING):
        again = EditLog(log.folder)
    assert again.ids == [1, 2, 3] and "entry 4 was not written to its end" in caplog.text
    assert again.append(make(4, "w3", "w4")) == 4
    caplog.clear()
    assert EditLog(log.folder).ids == [1, 2, 3, 4] and caplog.text == ""


@pytest.mark.parametrize("how", ["short", "missing"])
def test_a_torn_last_file_is_left_out(log, how, caplog):
    path = log.folder / "000003.safetensors"
    path.write_bytes(path.read_bytes()[:-10]) if how == "short" else path.unlink()
    with caplog.at_level(logging.WARNING):
        again = EditLog(log.folder)
    assert again.ids == [1, 2] and "missing or short" in caplog.text
    again.append(make(4, "w2", "w4"))
    assert EditLog(log.folder).ids == [1, 2, 3]


@pytest.mark.parametrize(
    "damage, reason",
    [
        (lambda lines: lines[:1] + [lines[1][:20] + "\n"] + lines[2:], "line 2 is damaged"),
        (lambda lines: lines[:1] + lines[2:], "entry 3, which does not follow"),
        (lambda lines: [lines[0], lines[2], lines[1]], "does not follow"),
        (lambda lines: lines[1:], "entry 2, which does not follow"),
        (lambda lines: [*lines[:2], lines[2][:30] + "\n", '{"id": 4'], "line 3 is damaged"),
    ],
)
def test_a_damaged_log_is_refused(log, damage, reason):
    path = log.folder / "entries.jsonl"
    path.write_text("".join(damage(path.read_text().splitlines(keepends=True))))
    before = files(log.folder)
    with pytest.raises(StateError, match=reason):
        EditLog(log.folder)
    assert files(log.folder) == before


def test_a_log_of_the_previous_version_still_opens(log):
    """Its format was 1, and its lines held a chain of hashes."""
    header, path = log.folder / "log.json", log.folder / "entries.jsonl"
    header.write_text(header.read_text().replace('"format": 2', '"format": 1'))
    entries = [{**entry, "previous": f"{entry['id']}0", "hash": f"{entry['id']}1"} for entry in log.entries]
    path.write_text("".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries))
    again = EditLog(log.folder)
    again.verify()
    assert again.entries == entries and again.ids == [1, 2, 3]
    assert again.append(make(4, "w3", "w4")) == 4 and again.append_event("undo", {NAME: "w5"}, of=3) == 5
    assert EditLog(log.folder).ids == [1, 2, 4]


def test_a_damaged_head_is_refused(log):
    head = log.folder / "log.json"
    text = head.read_text()
    head.write_text(text.replace('"format": 2', '"format": 9'))
    with pytest.raises(StateError, match="format 9"):
        EditLog(log.folder)
    head.write_text("{")
    with pytest.raises(StateError, match="not the head of a log"):
        EditLog(log.folder)
    head.unlink()
    with pytest.raises(StateError, match="log.json is missing"):
        EditLog(log.folder)


def test_a_changed_or_missing_file_is_refused(log):
    path = log.folder / "000002.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    again = EditLog(log.folder)
    for read in (lambda: again[2], again.verify, lambda: again.copy(log.folder.parent / "copy")):
        with pytest.raises(StateError, match="000002.safetensors: was changed after entry 2"):
            read()
    path.unlink()
    with pytest.raises(StateError, match="000002.safetensors: missing, and entry 2 needs it"):
        EditLog(log.folder)[2]


@pytest.mark.parametrize(
    "before, reason", [("w2", "other weights of m.1.weight than entry 3"), ("w0", "they are the base's")]
)
def test_an_edit_on_other_weights_is_refused(log, before, reason):
    present = files(log.folder)
    with pytest.raises(StateError, match=reason):
        log.append(make(4, before, "w4"))
    assert files(log.folder) == present and log.ids == [1, 2, 3]


def test_records_without_fingerprints_are_refused(tmp_path):
    with pytest.raises(StateError, match="no fingerprints"):
        EditLog(tmp_path / "log").append(make(1, "w0", "w1", weights={}))
    assert not (tmp_path / "log").exists()


def test_a_second_parameter_has_a_base_of_its_own(log, caplog):
    unit = UnitDelta(torch.tensor([1]), torch.ones(1, 4), "output", (3, 4))
    weights = {OTHER: {"dtype": "bfloat16", "shape": [3, 4], "base": "v0", "before": "v1", "after": "v2"}}
    log.append(make(4, "", "", layers={}, names={}, units={OTHER: unit}, weights=weights))
    assert "edited before the log began" in caplog.text
    assert (
        EditLog(log.folder).weights_at() == {NAME: "w3", OTHER: "v2"}
        and EditLog(log.folder).weights_at(0)[OTHER] == "v1"
    )
    assert log.entries[3]["changes"][OTHER] == {"units": 1, "axis": "output", "neurons": 1, "norm": 2.0}


def test_cut_and_copy(log, tmp_path):
    log.append_event("undo", {NAME: "w4"}, of=3)
    copy = log.copy(tmp_path / "copy", upto=2)
    assert (
        copy.ids == [1, 2]
        and copy.entries == log.entries[:2]
        and sorted(files(copy.folder))
        == ["000001.safetensors", "000002.safetensors", "entries.jsonl", "log.json"]
    )
    with pytest.raises(StateError, match="holds a log already"):
        log.copy(tmp_path / "copy")
    log.truncate(2)
    assert (
        files(log.folder) == files(copy.folder)
        and log.weights_at() == {NAME: "w2"}
        and log.append(make(3, "w2", "w3")) == 3
    )
    with pytest.raises(StateError, match="there is no entry 9"):
        log.ids_at(9)


def test_the_same_edit_has_the_same_content(log, tmp_path):
    other = EditLog(tmp_path / "other")
    slower = make(1, "w0", "w1", seconds={"target": 9.0})
    other.append(slower)
    assert (
        other.entries[0]["content"] == log.entries[0]["content"]
        and other.entries[0]["sha256"] != log.entries[0]["sha256"]
    )
    changed = dataclasses.replace(slower.layers[1], key_factor=slower.layers[1].key_factor * 2)
    third = EditLog(tmp_path / "third")
    third.append(make(1, "w0", "w1", layers={1: changed}))
    assert third.entries[0]["content"] != log.entries[0]["content"]


def test_nothing_is_made_before_the_first_entry(tmp_path):
    log = EditLog(tmp_path / "log")
    assert len(log) == 0 and list(log) == [] and not (tmp_path / "log").exists()


@pytest.mark.parametrize(
    "name", ["../../notes", "/etc/hostname", "000002.safetensors", "entries.jsonl", None, 3]
)
def test_an_entry_names_its_own_file_and_no_other(name, tmp_path):
    """Whoever sends a log could have files read, overwritten and deleted elsewhere."""
    log = EditLog(tmp_path / "log", "some-model", "f0")
    log.append(make(1, "w0", "w1"))
    lines = [json.loads(line) for line in (tmp_path / "log/entries.jsonl").read_text().splitlines()]
    lines[0]["file"] = name
    (tmp_path / "log/entries.jsonl").write_text(json.dumps(lines[0]) + "\n")
    with pytest.raises(
        StateError, match=r"line 1 names the file .*; an entry's file is '000001.safetensors'"
    ):
        EditLog(tmp_path / "log")
