"""The benchmark of PNKE runs from end to end on a tiny shape, and its plain search finds what ours does."""

import json

from benchmarks import editing, pnke


def test_it_runs(monkeypatch, tmp_path, capsys):
    original, few = editing.settings, {"v_num_grad_steps": 2, "ig_steps": 2}
    monkeypatch.setattr(pnke, "settings", lambda *args, **changes: original(*args, **{**few, **changes}))
    monkeypatch.setattr(pnke, "peak_bytes", lambda run, device: len(str(run())))
    monkeypatch.setattr(pnke, "M", 2)
    monkeypatch.setattr(pnke, "STEPS", 2)
    monkeypatch.setattr(pnke, "FEWER", 1)
    file = tmp_path / "result.json"
    assert pnke.main(["--shape", "tiny", "--repeats", "1", "--batch", "2", "--json", str(file)]) == 0
    written = json.loads(file.read_text())
    assert written["settings"]["difference"] < 1e-4
    single, small, batch, fewer, closed, adam = written["results"]
    # 2 prompts of P_sem and P_spec, and 2 points in each of 5 layers; ours: P_sem once, P_spec's keys and its
    # paths once a layer, its probability once
    assert (
        single["passes"]["peer"]["forward_calls"] == 3 + 10
        and single["passes"]["ours"]["forward_calls"] == 1 + 5 + 5 + 1
    )
    assert batch["passes"]["ours"]["forward_calls"] == single["passes"]["ours"]["forward_calls"]
    assert single["passes"]["ours"]["forward_equivalents"] < single["passes"]["peer"]["forward_equivalents"]
    assert (
        fewer["passes"]["ours"]["backward_equivalents"] == batch["passes"]["ours"]["backward_equivalents"] / 2
    )
    assert {"mask", "target", "solve"} <= set(closed["stages"]) & set(adam["stages"])
    output = capsys.readouterr().out
    assert "passes of the whole model" in output and "ratio" in output
