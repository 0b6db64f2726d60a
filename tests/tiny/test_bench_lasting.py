"""``easyedit-neuron bench lasting`` on the shipped model: runs, rows, tables, pictures; and again."""

import json

import pytest

from easyedit_neuron import resources
from easyedit_neuron.bench.rows import read_all
from easyedit_neuron.cli.commands import run_command
from easyedit_neuron.utils.lists import mean

pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    out = tmp_path_factory.mktemp("bench")
    world = resources.data_dir("tiny-world")
    arguments = ["bench", "lasting", "--out", str(out), "--model", "tiny-llama", "--edits", "12"]
    arguments += ["--data", f"facts={world / 'edits_knowedit.json'}", "--methods", "FT", "FT method.lr=1e-3"]
    arguments += ["--settings", "evaluation.fluency=2", "evaluation.fluency_tokens=5"]
    arguments += ["--retained", str(world / "retained.json"), "--baseline", "FT"]
    assert run_command(arguments) == 0
    return out, arguments


def test_rows_are_those_of_the_runs(bench):
    out, _ = bench
    plain, changed = read_all(out / "rows")
    assert plain.cell.label == "FT" and changed.cell.label == "FT (lr=1e-3)"
    for rows in (plain, changed):
        assert set(rows.records) == {"10", "12"} and set(rows.model) == {"0", "10", "12"}
        run = out / "runs" / rows.cell.name
        lines = [json.loads(line) for line in (run / "edits.jsonl").read_text().splitlines()]
        for column, name in (("rel", "rewrite_acc"), ("rel_answered", "rewrite_answer_says")):
            expected = [line["final"] and mean(line["final"][name]) for line in lines]
            assert rows.records["12"][column] == pytest.approx(expected, abs=1e-4)
        last = json.loads((run / "summary.json").read_text())["results"]["final"]
        assert rows.model["12"]["retained"] == pytest.approx(last["retained"], abs=1e-4)
        assert rows.model["12"]["first_token_kl"] == pytest.approx(last["first_token_kl"], abs=1e-4) != 0
        assert rows.model["0"]["first_token_kl"] == pytest.approx(0, abs=1e-6)
    before = [(out / "runs" / rows.cell.name / "before.json").read_bytes() for rows in (plain, changed)]
    assert before[0] == before[1]  # measured once


def test_pages_are_made_again_without_running(bench, capsys):
    out, arguments = bench
    text = (out / "lasting-tables.md").read_text()
    assert "| FT (lr=1e-3), batch 10 |" in text and "Differences to FT" in text
    assert (out / "lasting-facts.png").stat().st_size > 10_000
    (out / "lasting-tables.md").unlink()
    assert run_command(["bench", "lasting", "--out", str(out), "--baseline", "FT"]) == 0
    assert (out / "lasting-tables.md").read_text() == text
    times = {path: path.stat().st_mtime_ns for path in (out / "runs").glob("*/summary.json")}
    assert run_command(arguments) == 0
    assert times == {path: path.stat().st_mtime_ns for path in times}


@pytest.mark.parametrize(
    "more, message",
    [
        (["--methods"], "holds no rows"),
        (["--data", "counterfact", "--methods", "FT"], "give a file, counterfact=FILE"),
        (["--model", "tiny-llama", "--methods", "FTT"], "did you mean 'FT'"),
    ],
)
def test_mistakes_are_one_line(tmp_path, capsys, more, message):
    assert run_command(["bench", "lasting", "--out", str(tmp_path), *more]) == 2
    assert message in capsys.readouterr().err
