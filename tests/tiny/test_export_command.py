"""``easyedit-neuron export`` and ``import`` as they are typed, on the log of a run that has taken an edit
back."""

import copy
import json
import os
import subprocess
import sys

import pytest
from peft import PeftModel
from transformers import AutoModelForCausalLM

from easyedit_neuron import resources
from easyedit_neuron.cli import main
from easyedit_neuron.editlog import EditLog, undo
from helpers.editlogs import edited
from helpers.exports import distance, edited_in_float64, logits, same_weights


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run's folder with its log of three edits, the second taken back; the base model beside it."""
    folder = tmp_path_factory.mktemp("command")
    base, tok = edited("qwen2", "KNE", folder, requests=[])[:2]
    base.save_pretrained(folder / "base")
    tok.save_pretrained(folder / "base")
    (folder / "run").mkdir()
    model, _, _, log, _ = edited("qwen2", "KNE", folder, name="run/log", model_name=str(folder / "base"))
    undo(model, log, 2)
    return folder, base, tok, [log[1], log[3]]


def checkpoint(path):
    return AutoModelForCausalLM.from_pretrained(path).eval()


def test_an_adapter(run, tmp_path, capfd):
    folder, base, tok, records = run
    assert main(["export", str(folder / "run"), "--to", "peft", "--out", str(tmp_path / "adapter")]) == 0
    out, err = capfd.readouterr()
    assert (
        err == ""
        and out.startswith(f"2 edits as peft: {tmp_path / 'adapter'} (")
        and "nothing is lost" in out
    )
    side_file = json.loads((tmp_path / "adapter" / "easyedit_neuron.json").read_text())
    worst = max(entry["deviation"] for entry in side_file["parameters"].values())
    assert f"rounded to float32, are within {worst:.1e} of their change" in out
    assert [edit["id"] for edit in side_file["edits"]] == [1, 3] and side_file["base"]["name"] == str(
        folder / "base"
    )
    merged = PeftModel.from_pretrained(copy.deepcopy(base), str(tmp_path / "adapter")).merge_and_unload()
    truth = edited_in_float64(base, records)
    assert all(distance(value, truth[name]) < 5e-7 for name, value in merged.named_parameters())

    assert (
        main(
            [
                "import",
                str(tmp_path / "adapter"),
                "--model",
                str(folder / "base"),
                "--out",
                str(tmp_path / "model"),
            ]
        )
        == 0
    )
    assert capfd.readouterr().out.startswith("2 edits put in: ")
    assert all(
        distance(value, truth[name]) < 5e-7
        for name, value in checkpoint(tmp_path / "model").named_parameters()
    )


def test_a_cut_adapter(run, tmp_path, capfd):
    folder = run[0]
    assert (
        main(
            [
                "export",
                str(folder / "run" / "log"),
                "--to",
                "peft",
                "--max-rank",
                "2",
                "--out",
                str(tmp_path / "cut"),
            ]
        )
        == 0
    )
    out = capfd.readouterr().out
    side_file = json.loads((tmp_path / "cut" / "easyedit_neuron.json").read_text())
    worst = max(entry["truncation"] for entry in side_file["parameters"].values())
    assert f"at most {worst:.2%} of a weight's change is lost" in out and "ranks 2 to 2" in out
    answers = side_file["rewrite_acc"]
    assert (
        f"rewrite_acc {answers['edited']:.3f} with the whole edits, {answers['cut']:.3f} with the cut" in out
    )


def test_sparse_and_merged(run, tmp_path, capfd):
    folder, base, tok, records = run
    for form in ("sparse", "merged"):
        assert (
            main(["export", str(folder / "run"), "--to", form, "--edits", "3", "--out", str(tmp_path / form)])
            == 0
        )
        assert capfd.readouterr().out.startswith(f"1 edit as {form}: ")
    # the base is named in it
    assert (
        main(["import", str(tmp_path / "sparse" / "sparse.safetensors"), "--out", str(tmp_path / "in")]) == 0
    )
    imported, merged = checkpoint(tmp_path / "in"), checkpoint(tmp_path / "merged")
    assert same_weights(imported, merged) and distance(logits(imported, tok), logits(base, tok)) > 1e-3
    truth = edited_in_float64(base, records[1:])
    assert all(distance(value, truth[name]) < 5e-7 for name, value in imported.named_parameters())
    source, edited_model, out = (str(tmp_path / name) for name in ("sparse", "in", "off"))
    assert main(["import", source, "--take-off", "--model", edited_model, "--out", out]) == 0
    assert same_weights(checkpoint(tmp_path / "off"), base) and "taken off" in capfd.readouterr().out


def test_sizes(run, tmp_path, capfd, monkeypatch):
    folder, base = run[:2]
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(folder / "run"), "--sizes"]) == 0
    rows = {line.split("  ")[0]: line for line in capfd.readouterr().out.splitlines()}
    assert list(rows) == ["form", "records", "adapter", "cut adapter", "sparse", "merged", "unedited model"]
    assert not list(tmp_path.iterdir())
    del rows["form"]
    number = {
        form: int(line[len("unedited model") :].split()[0].replace(",", "")) for form, line in rows.items()
    }
    assert number["merged"] == number["unedited model"] == sum(p.numel() * 4 for p in base.parameters())
    assert main(["export", str(folder / "run"), "--to", "peft", "--out", "out"]) == 0
    whole = sum(path.stat().st_size for path in (tmp_path / "out").iterdir())
    assert abs(whole - number["adapter"]) < 200  # the side file names the base as it was given
    assert (
        sum(path.stat().st_size for path in (folder / "run" / "log").glob("*.safetensors"))
        > number["records"]
        > 0
    )


@pytest.mark.parametrize(
    "arguments, part",
    [
        (
            ["export", "run", "--to", "peft", "--out", "new", "--edits", "2"],
            "no edit 2 is in the weights; there are 1 to 3",
        ),
        (["export", "run", "--to", "peft", "--out", "base"], "base: exists already"),
        (
            ["export", "run", "--to", "peft", "--out", "new", "--max-rank", "0"],
            "max_rank: must be at least 1",
        ),
        (["export", "base", "--to", "peft", "--out", "new"], "base: holds no log of edits"),
        (["export", "nowhere", "--to", "peft", "--out", "new"], "there is no such folder"),
        (
            ["export", "run", "--to", "sparse", "--out", "new", "--model", "./nothing"],
            "there is no folder './nothing'",
        ),
        (
            ["export", "run", "--to", "sparse", "--out", "new", "--model", "tiny-llama"],
            "the model is not the log's base",
        ),
        (["export", "run", "--to", "peft"], "--to and --out are needed"),
        (["export", "run", "--to", "merged", "--out", "new", "--max-rank", "3"], "are for --to peft"),
        (["import", "base", "--out", "new"], "it has no easyedit_neuron.json"),
        (["import", "nowhere", "--out", "new"], "there is no such file or folder"),
        (["import", "base", "--out", "run"], "run: exists already"),
    ],
)
def test_mistakes(run, arguments, part, capfd, monkeypatch):
    monkeypatch.chdir(run[0])
    before = sorted(run[0].iterdir())
    assert main(arguments) == 2
    out, err = capfd.readouterr()
    assert out == "" and part in err and sorted(run[0].iterdir()) == before


def test_a_damaged_log(run, tmp_path, capfd):
    folder = run[0]
    log = EditLog(folder / "run" / "log").copy(tmp_path / "log")
    path = tmp_path / "log" / log.edit_entry(1)["file"]
    path.write_bytes(path.read_bytes()[:-1] + b"\x07")
    assert main(["export", str(tmp_path / "log"), "--to", "sparse", "--out", str(tmp_path / "out")]) == 2
    assert "entry 1" in capfd.readouterr().err and not (tmp_path / "out").exists()


def test_as_a_process(run, tmp_path):
    folder, base, _, records = run
    environment = {**os.environ, "PYTHONPATH": str(resources.PACKAGE_DIR.parent)}
    command = [
        sys.executable,
        "-m",
        "easyedit_neuron",
        "export",
        str(folder / "run"),
        "--to",
        "merged",
        "--out",
        "edited",
    ]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("2 edits as merged: edited "), done.stderr
    truth = edited_in_float64(base, records)
    assert all(
        distance(value, truth[name]) < 5e-7
        for name, value in checkpoint(tmp_path / "edited").named_parameters()
    )
