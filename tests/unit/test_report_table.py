"""The table over a sweep, and the table of one run."""

import csv
import json

import pytest

from easyedit_neuron.errors import NeuronEditError
from easyedit_neuron.lifelong.run_folder import CSV_COLUMNS
from easyedit_neuron.report import final
from easyedit_neuron.report.runs import read_runs
from easyedit_neuron.report.sentences import sentences
from easyedit_neuron.report.table import aligned, as_markdown, number, shown, write_table
from helpers.run_folders import run_folder


@pytest.fixture
def sweep(tmp_path):
    folder = tmp_path / "sweep"
    run_folder(folder / "0", "MEMIT", 150, unmasked=True)
    run_folder(folder / "1", "NMKE", 150, seed=1, half=50, leave_out=("fluency",), failed=(4,))
    run_folder(folder / "2", "NMKE", 150, seed=2, done=60)
    return folder


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_csv_has_every_column_and_the_numbers_in_full(sweep, tmp_path):
    path = write_table(read_runs([sweep]), tmp_path / "new" / "table.csv")
    rows = read(path)
    assert [row["run"] for row in rows] == ["MEMIT", "NMKE seed=1", "NMKE seed=2"]
    assert [row["status"] for row in rows] == ["finished", "finished", "unfinished: 60 of 150"]
    assert {*CSV_COLUMNS, "loc:neighborhood", "loc:same_subject", "portability:one_hop", "seed"} < set(
        rows[0]
    )
    for row, name in zip(rows, "012"):
        last = read(sweep / name / "checkpoints.csv")[-1]
        assert {column: row[column] for column in CSV_COLUMNS} == last
        if last["rel_immediate"]:
            assert float(row["rel_lost"]) == float(last["rel_immediate"]) - float(last["rel"])
        assert float(row["seconds_per_edit"]) == float(last["seconds_edit"]) / int(last["edits"])
    assert rows[1]["fluency"] == "" and rows[1]["failed"] == "1" and rows[2]["edits"] == "10"


def test_a_run_before_its_first_checkpoint_is_a_row(sweep, tmp_path):
    (sweep / "2" / "checkpoints.jsonl").unlink()
    row = read(write_table(read_runs([sweep]), tmp_path / "t.csv"))[2]
    assert row["status"] == "unfinished: 60 of 150" and row["rel"] == "" == row["edits"]


def test_for_people(sweep):
    head, base, *rows = shown(read_runs([sweep]))
    assert head[:5] == ["run", "edits", "Rel", "Gen", "Loc"] and head[-2:] == ["failed", "status"]
    assert (
        base[0] == "untouched model"
        and base[head.index("perplexity")] == "4.200"
        and base[head.index("fluency")] == "-"
    )
    assert [row[1] for row in rows] == ["150", "150", "10"] and rows[1][head.index("fluency")] == "-"


def test_markdown_has_as_many_cells_in_every_row(sweep, tmp_path):
    run_folder(sweep / "3", "A|B\\", 20)
    lines = as_markdown(read_runs([sweep])).split("\n\n")[0].splitlines()
    bare = [line.replace("\\\\", "").replace("\\|", "") for line in lines]
    assert len({line.count("|") for line in bare}) == 1 and lines[-1].startswith("| A\\|B\\\\ |")
    assert write_table(read_runs([sweep]), tmp_path / "t.md").read_text() == as_markdown(read_runs([sweep]))


def test_text_is_aligned():
    body = [["a", "1.000", "-", "finished"], ["longer", "0.5", "0.250", "unfinished: 3"]]
    lines = aligned([["run", "Rel", "Rel lost", "status"], *body]).split("\n")
    assert lines == [
        "                 Rel",
        "run       Rel   lost  status",
        "a       1.000      -  finished",
        "longer    0.5  0.250  unfinished: 3",
    ]


@pytest.mark.parametrize(
    "value, text",
    [
        (None, "-"),
        (0.0, "0.000"),
        (12, "12"),
        (5000, "5,000"),
        (0.12345, "0.123"),
        (4.5e-5, "4.50e-05"),
        (123.456, "123.5"),
        (12345.6, "12,346"),
        (2.5e7, "2.50e+07"),
        (-0.25, "-0.250"),
    ],
)
def test_numbers(value, text):
    assert number(value) == text


def test_other_forms_are_refused(sweep, tmp_path):
    with pytest.raises(NeuronEditError, match=r"t.xlsx: a table is written as .csv, .md, .txt"):
        write_table(read_runs([sweep]), tmp_path / "t.xlsx")
    assert list(tmp_path.iterdir()) == [sweep]


def test_the_table_of_one_run(sweep):
    summary = json.loads((sweep / "1" / "summary.json").read_text())
    results = summary["results"] = {
        "before": {"rewrite_acc": 0.1, "locality": {}, "retained": 1.0, "retained_facts": 8},
        "immediate": {"rewrite_acc": 0.75, "loc": 0.5, "locality": {"near_acc": 0.8, "far_acc": 0.2}},
        "final": {
            "rewrite_acc": 0.5,
            "rewrite_generation_exact_match": 0.25,
            "loc": 0.4,
            "locality": {"near_acc": 0.5, "far_acc": 0.3},
            "retained": 0.75,
            "retained_facts": 8,
            "retained_asked": 9,
        },
    }
    text = final.table(summary)
    title, _, head, *lines = text.splitlines()
    assert title == (
        "NMKE on tiny-llama: 150 sequential edits of tiny-world, batch size 1, seed 1; "
        "failed and rolled back: 1; duplicates: 3"
    )
    assert head.split() == ["before", "immediate", "final", "lost"]
    rows = {line[:34].strip(): line[34:].split() for line in lines}
    assert rows["Rel   rewrite"] == ["0.100", "0.750", "0.500", "0.250"]
    assert rows["Rel   exact match, generated"] == ["-", "-", "0.250", "-"]
    assert rows["Loc   all kinds"] == ["-", "0.500", "0.400", "0.100"] and rows["Loc   far"] == [
        "-",
        "0.200",
        "0.300",
        "-0.100",
    ]
    assert rows["retained facts (of 8 known)"] == ["1.000", "-", "0.750", "-"]
    assert rows["mask density, layer 4"] == ["0.200"] and rows["peak memory, MiB"] == ["707.5"]
    assert not any("fluency" in name or "Port" in name for name in rows)
    summary["intervals"] = {"rewrite_acc": [0.25, 0.75], "locality": {"far_acc": [0.0, 1.0]}, "loc": None}
    head, *lines = final.table(summary).splitlines()[2:]
    assert head.split() == ["before", "immediate", "final", "lost", "95%"]
    rows = {line[:34].strip(): line[34:].split() for line in lines}
    assert rows["Rel   rewrite"] == ["0.100", "0.750", "0.500", "0.250", "0.250-0.750"]
    assert rows["Loc   far"][-1] == "0.000-1.000" and len(rows["Loc   near"]) == 4
    # one kind needs no mean over kinds; without the immediate protocol nothing is known to be lost
    results["final"]["locality"] = results["immediate"]["locality"] = {"near_acc": 0.5}
    assert "all kinds" not in final.table(summary)
    del results["immediate"]
    assert "lost" not in final.table(summary)


def test_the_table_is_preceded_by_edits_in_sentences(tmp_path):
    """At most four, spread over the stream: before, now, a rephrasing, a neighbor."""
    folder = run_folder(tmp_path / "a", "MEMIT", 40, answers=20)
    summary = json.loads((folder / "summary.json").read_text())
    assert [example["edit"] for example in summary["examples"]] == [0, 10, 20, 30]
    first = summary["examples"][0] = {
        "edit": 0,
        "target_new": "Rome",
        "answers": {
            "rewrite": {"prompt": "The capital of France is", "before": "Paris.", "final": "Rome."},
            "rephrase": {"prompt": "What is France's capital?", "before": "Paris.", "final": ""},
            "neighbor": {"prompt": "The capital of Italy is", "before": "Rome.", "final": "Rome\x1b.\n"},
        },
    }
    title, examples, scores = final.table(summary).split("\n\n", 2)
    assert title.startswith("MEMIT on") and examples.splitlines() == [
        "The capital of France is ...",
        "    before:    Paris.",
        "    now:       Rome.   (wanted: Rome)",
        '    rephrased  "What is France\'s capital?"  now: (nothing)',
        '    neighbour  "The capital of Italy is ..."  before: Rome.  now: Rome .',
    ]
    assert scores.count("(wanted: French)") == 3 and "Rel   rewrite" in scores
    summary["examples"] = [first | {"answers": {"rewrite": first["answers"]["rewrite"]}}]
    assert "rephrased" not in final.table(summary) and "neighbour" not in final.table(summary)
    summary["examples"] = []
    assert final.table(summary).splitlines()[1:3] == [
        "",
        scores[scores.index("\n" + " " * 20) + 1 :].splitlines()[0],
    ]


def test_long_sentences_fit_the_terminal():
    """A prompt keeps its end, which says what it asks for; answers keep their beginnings."""
    prompt, answer = "a long way " * 15 + "to go", "word " * 30
    entry = {"prompt": prompt, "before": answer, "final": answer}
    example = {
        "edit": 0,
        "target_new": answer,
        "answers": dict.fromkeys(("rewrite", "rephrase", "neighbor"), entry),
    }
    lines = sentences([example]).splitlines()
    assert max(map(len, lines)) <= 100 and len(lines) == 8
    assert lines[0].startswith("…") and lines[0].endswith("long way to go ...")
    assert lines[3].startswith('    rephrased  "…') and lines[3].endswith('to go ..."')
    assert [line.strip()[:12] for line in lines[5:]][1:] == ["before: word", "now:    word"]


def test_many_weights_are_shown_as_their_mean(tmp_path):
    names = tuple(
        f"model.layers.{layer}.mlp.{kind}.weight" for layer in range(3) for kind in ("up_proj", "down_proj")
    )
    folder = run_folder(tmp_path / "a", "PNKE", 20, layers=names, density=0.02)
    text = final.table(json.loads((folder / "summary.json").read_text()))
    mean = sum(0.02 * (1 + i / 10) for i in range(6)) / 6
    assert (
        f"mask density, mean of 6 weights{mean:>40.3f}".split()[-1] == "0.025"
        and "mask density, mean of 6 weights" in text
    )
    assert "layers.0" not in text
