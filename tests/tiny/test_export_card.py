"""Model cards of exports: the header, and what they say of the edits and of the run that made them."""

import json
import shutil

import pytest
import yaml

from easyedit_neuron.cli import main
from easyedit_neuron.editlog import EditLog
from easyedit_neuron.export import export_merged, export_peft, read_side_file
from easyedit_neuron.export.card import MOST_EDITS, card
from helpers.exports import run_of
from helpers.lifelong_runs import make_world, start


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of two batches of two edits."""
    folder = tmp_path_factory.mktemp("card")
    world = make_world(folder)
    start(
        world, folder / "run", method="MEMIT", edits=4, batch_size=2, checkpoints=[], measure={"fluency": 0}
    )
    return folder / "run"


def header_of(text):
    return yaml.safe_load(text.split("---\n")[1])


def section(text, title):
    return text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize("kind, library", [("peft", "peft"), ("merged", "transformers")])
def test_the_card_of_a_whole_run(run, tmp_path, capsys, kind, library):
    command = ["export", str(run), "--to", kind, "--out", str(tmp_path / "out"), "--base-name", "some/model"]
    assert main(command) == 0
    text = (tmp_path / "out" / "README.md").read_text()
    header = header_of(text)
    assert (header["library_name"], header["base_model"]) == (library, "some/model")
    assert {"knowledge-editing", "memit"} <= set(header["tags"]) and ("lora" in header["tags"]) == (
        kind == "peft"
    )
    summary = json.loads((run / "summary.json").read_text())
    final, intervals = summary["results"]["final"], summary["intervals"]
    for label, name in (("Rel", "rewrite_acc"), ("Gen", "rephrase_acc"), ("Loc", "loc")):
        low, high = intervals[name]
        (row,) = [line for line in section(text, "Measured").splitlines() if line.startswith(f"| {label} ")]
        assert row.endswith(f"| {final[name]:.3f} ({low:.3f}-{high:.3f}) |")
    log = EditLog(run / "log")
    rows = section(text, "Edits").splitlines()
    for number in log.ids:
        for request in log.edit_entry(number)["requests"]:
            assert f"| {number} | {request['prompt']} | {request['target_new']} |" in rows
    settings = json.loads(section(text, "Settings").partition("```json\n")[2].partition("```")[0])
    assert settings["MEMIT"]["v_num_grad_steps"] == 2 and "stats_dir" not in settings["MEMIT"]
    # No path of this machine is in it, and the code that loads is for this kind.
    assert str(run.parent) not in text
    assert "PeftModel.from_pretrained(base" in text if kind == "peft" else "PeftModel" not in text
    assert "undo RUN ID" in section(text, "Undo")
    if kind == "peft":
        assert "vllm serve some/model --enable-lora --max-lora-rank 8 " in text
        assert "--max-lora-rank 8 " in capsys.readouterr().out


def test_the_card_of_a_gguf_file(run, tmp_path):
    """From the side file alone, as all cards are."""
    assert main(["export", str(run), "--to", "merged", "--out", str(tmp_path / "out")]) == 0
    text = card(read_side_file(tmp_path / "out")[1] | {"kind": "gguf"})
    assert header_of(text)["library_name"] == "gguf" and "llama-cli -m model.gguf" in section(text, "Load")


def test_nothing_is_said_of_edits_that_were_not_measured(run, tmp_path):
    """Some of the edits; and a log to which an entry was added since."""
    folder, nothing = tmp_path / "run", "Nothing was measured on this model."
    assert main(["export", str(run), "--to", "peft", "--out", str(tmp_path / "some"), "--edits", "2"]) == 0
    text = (tmp_path / "some" / "README.md").read_text()
    assert section(text, "Measured").strip() == nothing and "2 edits of model: a LoRA adapter" in text
    assert "base_model" not in header_of(text) and "`model` is a folder" in text
    shutil.copytree(run, folder)
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps(summary | {"edits": 3}))
    assert main(["export", str(folder), "--to", "peft", "--out", str(tmp_path / "other")]) == 0
    assert section((tmp_path / "other" / "README.md").read_text(), "Measured").strip() == nothing


def test_an_imported_adapter_says_what_it_holds(run, tmp_path):
    export = ["export", str(run), "--to", "peft", "--out", str(tmp_path / "adapter")]
    assert main(export) == 0
    assert main(["import", str(tmp_path / "adapter"), "--out", str(tmp_path / "model")]) == 0
    text = (tmp_path / "model" / "README.md").read_text()
    assert header_of(text)["library_name"] == "transformers" and "vllm" not in text.lower()
    assert "vllm" not in read_side_file(tmp_path / "model")[1]


def test_texts_of_others_stay_texts(tmp_path):
    base, _, tok, records = run_of("FiNE", "llama", tmp_path)
    first = records[0].requests[0]
    records[0].requests[0] = {**first, "prompt": "a | b\n# <script>*c*", "target_new": "[x](y)`z`"}
    export_merged(records, base, tok, tmp_path / "model")
    text = (tmp_path / "model" / "README.md").read_text()
    assert r"| 0 | a \| b \# &lt;script&gt;\*c\* | \[x\](y)\`z\` |" in text.splitlines()
    assert "<script>" not in text.partition("## Settings")[0]


def test_a_cut_adapter_and_a_long_list(tmp_path):
    base, _, tok, records = run_of("FiNE", "llama", tmp_path)
    exported = export_peft(records, base, tmp_path / "adapter", max_rank=1, tok=tok)
    text = (tmp_path / "adapter" / "README.md").read_text()
    scores = exported.side_file["rewrite_acc"]
    assert (
        f"Rel {scores['edited']:.3f} of the edits as they were made, {scores['cut']:.3f} with the cut" in text
    )
    many = exported.side_file | {"edits": exported.side_file["edits"] * MOST_EDITS}
    assert f"and {2 * MOST_EDITS:,} more, in `easyedit_neuron.json`" in card(many)
    assert section(card(many), "Edits").count("\n| ") == MOST_EDITS + 1
