"""Single edits: each on the untouched model; the same command continues."""

import json

import pytest
import torch

from easyedit_neuron import FiNEHyperParams, apply_fine_to_model, data
from easyedit_neuron.errors import DataError
from easyedit_neuron.evaluation import evaluate_all, locality_reference
from easyedit_neuron.evaluation.answers import answers
from easyedit_neuron.studies import single_edits
from easyedit_neuron.studies.edit_rows import add_row, first_rows, mend, read_rows
from easyedit_neuron.studies.over_editing import other_facts, rates
from easyedit_neuron.studies.single_edits import main, measure_edit, record_row, table_row
from easyedit_neuron.studies.untouched import Untouched


def test_an_edit_is_measured_and_taken_back(shipped_model):
    model, tok = shipped_model
    before = [parameter.detach().clone() for parameter in model.parameters()]
    request, hparams = data.load("tiny-world", size=1)[0], FiNEHyperParams.from_hparams("FiNE/tiny-llama")
    row = measure_edit(Untouched(model, tok), request, hparams, ["It rains."])
    assert all(torch.equal(old, new) for old, new in zip(before, model.parameters()))
    reference = locality_reference(model, tok, [request])
    apply_fine_to_model(model, tok, [request], hparams)
    (metrics,) = evaluate_all(model, tok, [request], reference=reference, exact_match=True)
    assert row["rel"] == metrics["rewrite_acc"][0] == row["rel_written"] == 1.0
    kinds = [values for name, values in metrics["locality"].items() if name.endswith("_acc")]
    assert row["loc"] == pytest.approx(sum(sum(kind) / len(kind) for kind in kinds) / len(kinds))
    assert row["perplexity"] > 1 and row["seconds"] > 0 and not row["failed"]


def test_over_editing_asks_other_facts_of_the_subject(shipped_model):
    """tiny-llama knows its world: before the edit it answers the other facts, and an edit that makes it say
    the new object everywhere is over-edited."""
    model, tok = shipped_model
    request, hparams = data.load("tiny-world", size=1)[0], FiNEHyperParams.from_hparams("FiNE/tiny-llama")
    row = measure_edit(Untouched(model, tok), request, hparams, over_editing=True)
    asked = request["locality"]["Relation_Specificity"]["prompt"]
    assert other_facts(request) == asked and len(asked) == 2
    before = answers(model, tok, asked)
    apply_fine_to_model(model, tok, [request], hparams)
    after = answers(model, tok, asked)
    same = [old == new for old, new in zip(before, after)]
    assert row["unchanging"] == sum(same) / 2
    assert row["over_edited"] == sum(text.startswith(request["target_new"]) for text in after) / 2
    assert measure_edit(Untouched(model, tok), request, None)["over_edited"] is None, "not asked for"


def test_rates_of_over_editing_by_hand():
    before = ["clarinet.", "Rome, it is.", "in May"]
    after = ["clarinet.", "Treilmon Union, of course", "treilmon unionist"]
    expected = {"over_edited": 1 / 3, "unchanging": 1 / 3}
    assert rates(before, after, "Treilmon Union") == pytest.approx(expected)
    assert rates([], [], "Rome") == {"over_edited": None, "unchanging": None}
    assert other_facts({"locality": {"Neighborhood": {"prompt": "x", "ground_truth": "y"}}}) == []


def test_exact_shares_count_whole_prompts():
    metrics = {
        "rewrite_acc": [1.0],
        "rephrase_acc": [0.5, 1.0],
        "locality": {"a_acc": [1.0, 0.5], "b_acc": [1.0]},
        "portability": {},
    }
    row = record_row(metrics)
    assert (row["rel_exact"], row["gen_exact"], row["loc_exact"]) == (1.0, 0.5, 0.75)
    assert (row["rel"], row["gen"], row["loc"]) == (1.0, 0.75, 0.875)


def test_the_table_has_intervals():
    rows = [dict.fromkeys(single_edits.SHOWN, share) | {"failed": False} for share in (0.0, 1.0) * 20]
    row = table_row("FiNE", rows)
    low, high = map(float, row["rel_interval"].split("-"))
    assert (
        (row["rel"], row["edits"], row["failed"]) == (0.5, 40, 0) and 0.3 < low < 0.42 and 0.58 < high < 0.7
    )


def test_the_command_continues_where_it_was(tmp_path, monkeypatch, capsys):
    words = ["--methods", "FiNE", "--data", "tiny-world", "--text", "tiny-world", "--out", str(tmp_path)]
    words += ["--perplexity", "1", "--device", "cpu"]
    assert main([*words, "--edits", "1"]) == 0
    file = tmp_path / "tiny-world-FiNE.jsonl"
    (first,) = file.read_text().splitlines()
    edits = []
    whole = single_edits.measure_edit
    monkeypatch.setattr(single_edits, "measure_edit", lambda *a: edits.append(a[1]) or whole(*a))
    assert main([*words, "--edits", "2"]) == 0
    assert edits == [data.load("tiny-world", size=2)[1]], "the first was not made again"
    assert (
        file.read_text().splitlines()[0] == first
        and json.loads(file.read_text().splitlines()[1])["perplexity"] is None
    )
    assert "FiNE,2,0" in (tmp_path / "single-tiny-world.csv").read_text()


def test_several_processes_share_the_records(tmp_path):
    words = ["--methods", "FiNE", "--data", "tiny-world", "--perplexity", "0", "--edits", "5"]
    assert main([*words, "--device", "cpu", "--out", str(tmp_path / "one")]) == 0
    assert main([*words, "--devices", "cpu", "cpu", "--out", str(tmp_path / "two")]) == 0
    one, two = (read_rows(tmp_path / name / "tiny-world-FiNE.jsonl") for name in ("one", "two"))
    assert list(two) == list(range(5))
    for number, row in two.items():
        assert row | {"seconds": 0} == one[number] | {"seconds": 0}
    table, single = ((tmp_path / name / "single-tiny-world.csv").read_text() for name in ("two", "one"))
    assert table.rpartition(",")[0] == single.rpartition(",")[0]


def test_a_process_that_fails_is_named(tmp_path, capsys):
    words = ["--methods", "FiNE", "--data", "tiny-world", "--edits", "2", "--perplexity", "0"]
    assert main([*words, "--devices", "cpu", "gpx", "--out", str(tmp_path)]) == 2
    assert "the processes on gpx have failed" in capsys.readouterr().err


def test_rows_without_numbers_are_in_the_order_of_the_records(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"rel": 1.0}\n{"rel": 0.5}\n')
    add_row(file, 3, {"rel": 0.25})
    add_row(file, 2, {"rel": 0.75})
    assert read_rows(file) == {0: {"rel": 1.0}, 1: {"rel": 0.5}, 2: {"rel": 0.75}, 3: {"rel": 0.25}}
    assert first_rows(file, 3) == [{"rel": 1.0}, {"rel": 0.5}, {"rel": 0.75}]


def test_a_line_that_a_kill_cut_off_is_made_again(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"rel": 1.0}\n{"rel": 0.')
    assert list(read_rows(file)) == [0]
    mend(file)
    add_row(file, 1, {"rel": 0.5})
    assert read_rows(file) == {0: {"rel": 1.0}, 1: {"rel": 0.5}}
    file.write_text('{"rel": 1.0}\nnonsense\n')
    with pytest.raises(DataError, match="line 2: no row of an edit"):
        read_rows(file)
    mend(tmp_path / "nothing.jsonl")
    assert not (tmp_path / "nothing.jsonl").exists()


def test_all_records(tmp_path):
    records = data.load("tiny-world", size=3)
    fields = ("prompt", "subject", "target_new", "ground_truth")
    file = tmp_path / "three.json"
    file.write_text(json.dumps([{name: record[name] for name in fields} for record in records]))
    words = ["--methods", "Untouched", "--data", str(file), "--perplexity", "0", "--device", "cpu"]
    assert main([*words, "--edits", "all", "--out", str(tmp_path / "out")]) == 0
    assert list(read_rows(tmp_path / "out" / "three-Untouched.jsonl")) == [0, 1, 2]
