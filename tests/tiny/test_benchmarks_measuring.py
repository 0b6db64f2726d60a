"""The benchmark of measuring: it runs, and times nothing where the numbers differ."""

import json

from benchmarks import measuring

WORDS = ["--model", "tiny-llama", "--data", "tiny-world", "--edits", "3", "--prompts", "2"]
WORDS += ["--tokens", "4", "--repeats", "1"]


def test_it_runs(tmp_path, capsys):
    file = tmp_path / "result.json"
    table = tmp_path / "speed.md"
    assert measuring.main([*WORDS, "--json", str(file), "--append", str(table)]) == 0
    metrics, texts = json.loads(file.read_text())["results"]
    assert metrics["ratio"] > 0 and metrics["floor_seconds"] > 0
    assert texts["texts that differ"] == 0 and min(texts["peer_seconds"] + texts["ours_seconds"]) > 0
    head, _, *lines = table.read_text().splitlines()
    assert [line.count("|") for line in lines] == [head.count("|")] * 2, "metrics and fluency"
    assert f"| {metrics['ratio']:.1f} (" in lines[0] and "torch" in lines[0]
    printed = capsys.readouterr().out
    assert "floor" in printed and "texts that differ: 0 of 2" in printed


def test_other_numbers_are_not_timed(monkeypatch, capsys):
    monkeypatch.setattr(measuring, "evaluate_all", lambda *_, **__: [])
    assert measuring.main(WORDS) == 1
    assert "no timing" in capsys.readouterr().out
