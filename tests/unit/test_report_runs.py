"""Reading run folders: sweeps, names that tell runs apart, unfinished runs, and folders that are none."""

import json

import pytest

from easyedit_neuron.errors import DataError
from easyedit_neuron.report.runs import differing, find_runs, read_run, read_runs
from helpers.run_folders import run_folder


def test_a_finished_run(tmp_path):
    run = read_run(run_folder(tmp_path / "a", "MEMIT", 120, failed=(3, 7)))
    assert (run.method, run.model, run.data) == ("MEMIT", "tiny-llama", "tiny-world")
    assert (run.planned, run.done, run.status) == (120, 120, "finished")
    assert [row["edits"] for row in run.rows] == [0, 10, 100, 120]
    assert run.untouched["edits"] == 0 and run.last["edits"] == 120 and run.last["failed"] == 2
    assert [edit.position for edit in run.edits if edit.reason] == [3, 7]
    assert run.edits[3].text == "The mother tongue of person 3 is → French"
    assert run.last["rel"] == run.checkpoints[-1]["final"]["rewrite_acc"]


def test_runs_of_a_sweep_in_natural_order(tmp_path):
    for name in ("10", "9", "deep/er/2"):
        run_folder(tmp_path / name, edits=5)
    (tmp_path / "logs").mkdir()
    assert [str(folder.relative_to(tmp_path)) for folder in find_runs(tmp_path)] == ["9", "10", "deep/er/2"]
    assert [run.folder.name for run in read_runs([tmp_path, tmp_path / "10"])] == [
        "9",
        "10",
        "2",
    ]  # each once


def test_labels_tell_runs_apart(tmp_path):
    run_folder(tmp_path / "0", "MEMIT", 5)
    run_folder(tmp_path / "1", "NMKE", 5, hparams={"mask_stage": "post"})
    run_folder(tmp_path / "2", "NMKE", 5, hparams={"mask_stage": "solve"})
    run_folder(tmp_path / "3", "FiNE", 5, seed=1)
    run_folder(tmp_path / "4", "FiNE", 5, seed=1)
    runs = read_runs([tmp_path])
    assert [run.label for run in runs] == [
        "MEMIT",
        "NMKE mask_stage=post",
        "NMKE mask_stage=solve",
        "FiNE (3)",
        "FiNE (4)",
    ]
    assert differing(runs) == ["seed", "method.mask_stage"]
    for name in "ab":
        run_folder(tmp_path / name / "same", "KNE", 5)
    runs = read_runs([tmp_path / "a", tmp_path / "b"])
    assert [run.label for run in runs] == [f"KNE ({tmp_path / name / 'same'})" for name in "ab"]


def test_a_label_has_only_the_settings_that_part_the_runs(tmp_path):
    for number, (keep, weight) in enumerate([(False, 100), (True, 100), (True, 1000), (True, 4000)]):
        run_folder(
            tmp_path / str(number),
            "MEMIT",
            5 + number,
            seed=number,
            hparams={
                "keep_edits": keep,
                "mom2_update_weight": weight,
                "mom2_n_samples": 6000 * (weight == 100),
            },
        )
    # The numbers of edits and the seeds would part them too, and say less; the samples say what the weight
    # has said.
    assert [run.label for run in read_runs([tmp_path])] == [
        "MEMIT mom2_update_weight=100 keep_edits=False",
        "MEMIT mom2_update_weight=100 keep_edits=True",
        "MEMIT mom2_update_weight=1000 keep_edits=True",
        "MEMIT mom2_update_weight=4000 keep_edits=True",
    ]


def test_a_label_that_stays_too_long_names_its_folder(tmp_path):
    for number in range(2):
        run_folder(tmp_path / str(number), "MEMIT", 5, hparams={"layer_module_tmp": "x" * 80 + str(number)})
    first, second = (run.label for run in read_runs([tmp_path]))
    assert first.endswith("… (0)") and second.endswith("… (1)") and len(first) < 80


def test_control_characters_do_not_reach_a_label(tmp_path):
    run_folder(tmp_path / "0", "N\x00\n\x1bK")
    assert read_runs([tmp_path])[0].label == "N K"


def test_an_unfinished_run_is_read_as_far_as_it_is(tmp_path):
    folder = run_folder(tmp_path / "a", edits=500, done=130)
    with open(folder / "edits.jsonl", "a") as file:
        file.write('{"edit": 130, "rec')  # killed while it wrote
    run = read_run(folder)
    assert run.summary is None and run.status == "unfinished: 130 of 500"
    assert [row["edits"] for row in run.rows] == [0, 10, 100] and len(run.edits) == 130
    for name in ("edits.jsonl", "checkpoints.jsonl"):
        (folder / name).unlink()
    run = read_run(folder)
    assert run.status == "unfinished: 0 of 500" and run.last == {} == run.untouched


def test_line_separators_in_prompts(tmp_path):
    run = read_run(run_folder(tmp_path / "a", edits=3, prompt="a\u2028b\x85c {}"))
    assert run.edits[2].text.startswith("a\u2028b\x85c 2")


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda folder: None, "there is no such folder"),
        (
            lambda folder: folder.mkdir(),
            r"not a run \(there is no .*run.json\), and no run in the folders below",
        ),
        (lambda folder: _write(folder, "run.json", "[1]"), "run.json: expected a JSON object"),
        (lambda folder: _write(folder, "run.json", "{"), "run.json: not JSON"),
        (lambda folder: _write(folder, "run.json", b"\xff"), "run.json: cannot be read"),
        (
            lambda folder: _write(folder, "run.json", '{"experiment": 3}'),
            "run.json: not of a run of the lifelong runner",
        ),
    ],
)
def test_folders_that_are_no_runs(tmp_path, make, message):
    make(tmp_path / "x")
    with pytest.raises(DataError, match=message):
        read_runs([tmp_path / "x"])


@pytest.mark.parametrize(
    "name, text, message",
    [
        (
            "checkpoints.jsonl",
            '{"step": 1, "loss": 2}\n',
            r"line 1: not a checkpoint of a run \(KeyError\('final'\)",
        ),
        ("checkpoints.jsonl", "[]\n", "checkpoints.jsonl, line 1: expected a JSON object"),
        ("checkpoints.jsonl", "", "checkpoints.jsonl: empty, although summary.json says"),
        ("edits.jsonl", "nonsense\n", "edits.jsonl, line 1: not JSON"),
        ("edits.jsonl", '{"edit": 0}\n', "edits.jsonl, line 1: not an edit of a run"),
        ("summary.json", "", "summary.json: not JSON"),
        ("edits.jsonl", None, "edits.jsonl: cannot be read: No such file"),
    ],
)
def test_files_that_are_not_of_a_run(tmp_path, name, text, message):
    folder = run_folder(tmp_path / "a", edits=12)
    (folder / name).unlink()
    if text is not None:
        (folder / name).write_text(text)
    with pytest.raises(DataError, match=message):
        read_run(folder)


def test_checkpoints_with_texts_for_numbers_or_out_of_order(tmp_path):
    folder = run_folder(tmp_path / "a", edits=12)
    lines = (folder / "checkpoints.jsonl").read_text().splitlines()
    changed = json.loads(lines[1])
    changed["final"]["rewrite_acc"] = "0.5"
    (folder / "checkpoints.jsonl").write_text("\n".join([lines[0], json.dumps(changed), lines[2]]) + "\n")
    with pytest.raises(DataError, match="line 2: not a checkpoint .*'0.5' is not a number"):
        read_run(folder)
    (folder / "checkpoints.jsonl").write_text("\n".join(reversed(lines)) + "\n")
    with pytest.raises(DataError, match="line 2: 'edits' must be a number above the line before"):
        read_run(folder)


def _write(folder, name, text):
    folder.mkdir()
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
