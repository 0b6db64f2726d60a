"""The benchmark of the log runs from end to end."""

import json

from benchmarks import editlog


def test_two_edits(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("EASYEDIT_NEURON_CACHE", str(tmp_path))
    editlog.main(
        ["--edits", "2", "--undone", "1", "--methods", "FiNE", "--json", str(tmp_path / "result.json")]
    )
    rows = json.loads((tmp_path / "result.json").read_text())["results"]
    assert [row["dtype"] for row in rows] == ["float32", "bfloat16"] and all(
        row["replayed_exactly"] for row in rows
    )
    assert all(0 < row["undo_error"] <= 2 and row["bytes"] > 1000 for row in rows)
    assert "FiNE" in capsys.readouterr().out
