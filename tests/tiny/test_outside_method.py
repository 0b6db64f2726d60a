"""A method of another package (``examples/salient_method``): installed, run, resumed, undone, exported, under
EasyEdit."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "salient_method"
RUN = ["method=salient", "model=tiny-llama", "data=tiny-world", "edits=6", "evaluation=quick"]
RUN += ["runner.checkpoints=[2]", "runner.save_every_edits=2", "method.mom2_n_samples=50"]
EASYEDIT_SCRIPT = """
import easyedit_neuron
from easyeditor import BaseEditor
from salient_method import SalientHyperParams

hparams = SalientHyperParams.from_hparams("MEMIT/tiny-llama")
hparams = hparams.override({"stats_dir": STATS, "mom2_n_samples": 50})
editor = BaseEditor.from_hparams(hparams)
metrics, model, _ = editor.edit(
    prompts=["Baimo Nuser has a position at"], subject=["Baimo Nuser"], target_new=["Treilmon Union"],
    ground_truth=["Liro Works"], sequential_edit=True,
)
print(type(editor).__module__, metrics[0]["post"]["rewrite_acc"])
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Folder that the example package is installed into, with the statistics cache of the module's runs."""
    folder = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    options = ["--no-deps", "--no-build-isolation", "--target", str(folder)]
    subprocess.run([*pip, *options, str(EXAMPLE)], check=True, cwd=folder)
    return folder


def environment(site, *paths):
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, (site, ROOT, *paths))),
        "EASYEDIT_NEURON_CACHE": str(site / "cache"),
    }


def command(site, *words):
    line = [sys.executable, "-m", "easyedit_neuron", *map(str, words)]
    done = subprocess.run(line, env=environment(site), cwd=site, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def finished(site):
    """Folder of a run that was not interrupted."""
    command(site, *RUN, f"output_dir={site / 'whole'}")
    return site / "whole"


def test_the_command_line_runs_it_with_its_checkpoints(site, finished):
    rows = (finished / "checkpoints.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["edits", "0", "2", "6"]
    assert "share" in command(site, "method=salient", "--cfg", "job")
    assert all(tensor.isfinite().all() for tensor in load_file(finished / "weights.safetensors").values())


def test_a_killed_run_goes_on_to_the_same_weights(site, finished):
    folder = site / "killed"
    line = [sys.executable, "-m", "easyedit_neuron", *RUN, f"output_dir={folder}"]
    process = subprocess.Popen(line, env=environment(site), cwd=site, stdout=subprocess.DEVNULL)
    edits = folder / "edits.jsonl"
    while process.poll() is None and not (edits.exists() and edits.read_text().count("\n") >= 3):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    command(site, *RUN, f"output_dir={folder}")
    first, second = (load_file(each / "weights.safetensors") for each in (finished, folder))
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_an_edit_is_undone_and_the_run_exported(site, finished):
    command(site, "undo", finished, "2", "--out", site / "undone")
    before, after = (load_file(folder / "weights.safetensors") for folder in (finished, site / "undone"))
    assert any(not torch.equal(before[name], after[name]) for name in before)
    command(site, "export", finished, "--to", "peft", "--out", site / "adapter")
    assert load_file(site / "adapter" / "adapter_model.safetensors")


def test_easyedits_editor_knows_it(site, finished):
    script = EASYEDIT_SCRIPT.replace("STATS", repr(str(site / "cache" / "stats")))
    double = ROOT / "tests" / "helpers" / "double"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment(site, double),
        cwd=site,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    module, accuracy = done.stdout.split()[-2:]
    assert module.startswith("easyeditor.") and accuracy == "[1.0]"
