"""Cells, records and tables of the bench, by hand-made numbers."""

import json
import subprocess
from types import SimpleNamespace

import pytest

from easyedit_neuron.bench.cells import Cell, run_cell
from easyedit_neuron.bench.records import Source, left_out
from easyedit_neuron.bench.rows import CellRows, read_all
from easyedit_neuron.bench.tables import (
    MethodRows,
    ability_table,
    checkpoints,
    difference_table,
    page,
    summary_table,
)
from easyedit_neuron.cli.commands import bench
from easyedit_neuron.errors import DataError, HparamsError, NeuronEditError
from easyedit_neuron.lifelong.run_folder import RunFolder


def rows_of(method, rel, seed=0, edits=4, retained=(3, 4), changes=(), **columns):
    """Rows of a cell with one checkpoint at its end, and one at half of it."""
    cell = Cell(method, changes, "facts", edits, 10, seed)
    records = {"rel": list(rel), **columns}
    half = {name: values[: edits // 2] for name, values in records.items()}
    model = {"retained": retained[0] / retained[1], "retained_facts": retained[1], "perplexity": 30.0 + edits}
    model |= {"first_token_kl": 0.25, "fluency": None, "seconds_edit": 2.0 * edits}
    counts = {str(edits // 2): model, str(edits): model, "0": {"perplexity": 30.0, "fluency": 5.0}}
    return CellRows(cell, 0, {str(edits // 2): half, str(edits): records}, counts, {}, None, {})


def test_a_cell_names_its_variant_and_is_a_command(tmp_path):
    cell = Cell.of("NMKE method.mask_stage=solve", "facts", 300, 10, 2)
    assert (
        cell.label == "NMKE (mask_stage=solve)"
        and cell.name == "facts-NMKE-method.mask_stage-solve-300-b10-s2"
    )
    source = Source("facts", tmp_path / "facts.json", tmp_path, retained=tmp_path / "known.json")
    (tmp_path / "facts.json").write_text('[{"case_id": 1}]')
    settings = cell.settings(source, "tiny-llama", tmp_path / "run")
    assert settings[:3] == ["method=nmke", "method.mask_stage=solve", "model=tiny-llama"]
    assert f"data.path={tmp_path / 'facts-2.json'}" in settings and "runner.checkpoints=[10,100]" in settings
    assert f"data.retained={tmp_path / 'known.json'}" in settings and "seed=2" in settings
    theirs = Cell.of("EasyEdit:GRACE", "facts", 10, 10, 0)
    assert theirs.batch_size == 1  # its batches are not ours to know
    assert theirs.settings(source, "tiny-llama", tmp_path)[:2] == ["method=easyedit", "method.alg=GRACE"]
    with pytest.raises(HparamsError, match="'solve' is no setting"):
        Cell.of("NMKE solve", "facts", 300, 10, 0)


def test_shipped_facts_are_shuffled_by_the_runner(tmp_path):
    settings = Cell.of("MEMIT", "real-world", 30, 10, 1).settings(
        Source("real-world", None, tmp_path), "m", tmp_path
    )
    assert "data=real-world" in settings and "runner.order=shuffled" in settings
    assert not any(setting.startswith("data.path") for setting in settings)


def test_records_are_shuffled_by_seed_without_those_left_out(tmp_path):
    file, spent = tmp_path / "facts.json", tmp_path / "spent.json"
    file.write_text(json.dumps([{"case_id": i, "neighborhood_prompts": list("abc")} for i in range(20)]))
    spent.write_text(json.dumps({"note": "used before", "facts.json": [3, 4]}))
    source = Source("facts", file, tmp_path / "records", left_out(spent), neighbors=2)
    orders = [json.loads(source.ordered(seed).read_text()) for seed in (0, 1, 0)]
    assert orders[0] == orders[2] and orders[0] != orders[1]
    assert sorted(record["case_id"] for record in orders[0]) == [i for i in range(20) if i not in (3, 4)]
    assert all(record["neighborhood_prompts"] == ["a", "b"] for record in orders[0])
    spent.write_text("[5, 6]")
    assert left_out(spent) == {5, 6}
    spent.write_text("{")
    for content, words in (
        ("{", "not readable"),
        ("3", "the content must be a mapping, not 3"),
        ("[[5]]", "must be .*, not .5."),
        ('{"dev": [null]}', "must be .*, not None"),
    ):
        spent.write_text(content)
        with pytest.raises(DataError, match=f"spent.json: .*{words}"):
            left_out(spent)
    file.write_text('[3, {"case_id": [1], "neighborhood_prompts": "abc"}]')
    damaged = Source("facts", file, tmp_path / "records", frozenset({1}), neighbors=2)
    assert (
        json.loads(damaged.ordered(1).read_text()) and len(damaged.records) == 2
    )  # the run says what is wrong


def test_words_of_the_command_are_checked():
    with pytest.raises(NeuronEditError, match="unknown method ''"):
        Cell.of("", "facts", 1, 1, 0)
    arguments = SimpleNamespace(retained=None, text=None, out=None, neighbors=1)
    with pytest.raises(NeuronEditError, match="'../x' is no name of letters and digits"):
        bench._source("../x=facts.json", arguments, frozenset())


def test_rows_survive_their_file(tmp_path):
    rows = rows_of("MEMIT", [1.0, 0.0, None, 1 / 3], changes=("method.v_lr=0.1",))
    assert rows.write(tmp_path).name == "facts-MEMIT-method.v_lr-0.1-4-b10-s0.json"
    (read,) = read_all(tmp_path)
    assert read.cell == rows.cell and read.records["4"]["rel"] == [1, 0, None, 0.3333]
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(DataError, match="other.json: holds no rows"):
        read_all(tmp_path)


def test_seeds_are_pooled_and_the_run_that_ends_there_counts():
    """Else the longest with that checkpoint; a run that goes on asks fewer facts."""
    short, long = rows_of("MEMIT", [1, 1, 0, 0]), rows_of("MEMIT", [1, 1, 1, 0, 0, 0, 0, 0], edits=8)
    longest = rows_of("MEMIT", [0] * 16, edits=16)
    other_seed = rows_of("MEMIT", [1, 0, 0, 0], seed=1, retained=(1, 4))
    method = MethodRows([short, long, other_seed], 4)
    assert method.values("rel") == [1, 1, 0, 0, 1, 0, 0, 0]
    assert sum(method.facts()) / len(method.facts()) == 0.5  # of 4 facts 3, and of 4 facts 1
    assert method.model("perplexity") == 34 and method.seconds_per_edit() == 2
    assert method.values("gen") == [None] * 8
    method = MethodRows([long, other_seed], 4)
    assert method.values("rel") == [1, 1, 1, 0, 1, 0, 0, 0]
    assert method.model("perplexity") == (38 + 34) / 2 and method.seconds_per_edit() == (4 + 2) / 2
    assert MethodRows([long, longest, short], 8).values("rel") == [1, 1, 1, 0, 0, 0, 0, 0]
    assert checkpoints([short, long], "facts") == [2, 4, 8] and checkpoints([short], "others") == []


def test_tables_have_means_intervals_and_paired_differences():
    rows = [
        rows_of("AlphaEdit", [1, 1, 0, 0], loc=[1, 1, 1, 1]),
        rows_of("NMKE", [1, 1, 1, 0], loc=[1, 1, 1, None]),
    ]
    first, second = summary_table(rows, "facts", 4).splitlines()[2:]
    assert first.startswith("| AlphaEdit, batch 10 | 1 | .500 [")
    assert "| .750 [" in second and "| .250 | 34.00 | – | 2.0 |" in second
    (line,) = difference_table(rows, "facts", 4, "AlphaEdit").splitlines()[2:]
    assert line.startswith("| NMKE, batch 10 | +.250 [+.000,")
    assert "+.000 [+.000, +.000]" in line  # Loc, on the three records that both have
    assert difference_table(rows, "facts", 4, "GRACE") == ""
    text = page(rows, "AlphaEdit")
    assert text.index("After 4 edits") < text.index("After 2 edits")
    assert "Untouched model: perplexity 30.00, fluency 5.00." in text


def test_general_ability_is_compared_document_by_document():
    row = rows_of("Lasting", [1, 1, 1, 1])
    before = {"metric": "acc_norm", "value": 0.75, "outcomes": [1.0, 1.0, 1.0, 0.0]}
    now = {"metric": "acc_norm", "value": 0.5, "outcomes": [1.0, 0.0, 1.0, 0.0]}
    row.model["0"]["ability"], row.model["4"]["ability"] = {"mmlu_cloze": before}, {"mmlu_cloze": now}
    (line,) = ability_table([row], "facts", 4).splitlines()[2:]
    assert line.startswith("| Lasting, batch 10 | 0 | mmlu_cloze | acc_norm | .750 | .500 | -.250 [-.750,")
    assert "General ability (lm-eval), document by document" in page([row], "AlphaEdit")
    del before["outcomes"]
    assert ability_table([row], "facts", 4).splitlines()[2].endswith("| .750 | .500 | – |")
    assert ability_table([rows_of("NMKE", [1, 1, 1, 1])], "facts", 4) == ""


def test_columns_that_nobody_measured_are_left_out():
    heading = summary_table([rows_of("NMKE", [1, 0, 0, 0], rel_judged=[1, 1, 1, 1])], "facts", 4)
    assert heading.splitlines()[0].startswith("| method | seeds | Rel | Rel judged | known facts |")


def test_what_was_measured_before_is_taken_over_from_a_run_that_measures_alike(tmp_path, monkeypatch):
    """GRACE and WISE are measured prompt by prompt; others cannot take over their values, nor they theirs."""
    (tmp_path / "facts.json").write_text('[{"case_id": 1}]')
    source = Source("facts", tmp_path / "facts.json", tmp_path)
    names = ("EasyEdit:GRACE", "NMKE", "EasyEdit:WISE", "FT", "EasyEdit:LoRA")
    cells = [Cell.of(name, "facts", 10, 1, 0) for name in names]
    for cell in cells[:2]:
        summary = RunFolder(tmp_path / "runs" / cell.name).summary
        summary.parent.mkdir(parents=True)
        summary.write_text("{}")
    commands: list[list[str]] = []
    monkeypatch.setattr(
        subprocess, "run", lambda command, check: commands.append(command) or SimpleNamespace(returncode=0)
    )
    for cell in cells[2:]:
        run_cell(cell, source, "tiny-llama", tmp_path, cells)
    taken = [words[-1].removeprefix("runner.untouched=") for words in commands]
    assert taken == [str(tmp_path / "runs" / cells[number].name) for number in (0, 1, 1)]
