"""The command on the real model: an edit by hand, asked and undone; defaults of a run."""

import json

import pytest

from easyedit_neuron import resources
from easyedit_neuron.cli import main
from easyedit_neuron.cli.commands.common import DEFAULT_LOG
from easyedit_neuron.hyperparameters.base import read_hparams

NAME = "smollm2-135m-instruct"


@pytest.fixture
def short_text(tmp_path, stats_dir):
    """MEMIT's shipped settings with statistics of a short text."""
    values = read_hparams(resources.hparams_path(f"MEMIT/{NAME}"))
    values |= {"mom2_n_samples": 24, "stats_dir": str(stats_dir)}
    path = tmp_path / "short.json"
    path.write_text(json.dumps(values))
    return path


def test_an_edit_by_hand(here, short_text, capsys):
    words = ["edit", "The capital of France is", "--subject", "France", "--target", "Rome"]
    assert main([*words, "--method", "MEMIT", "--hparams", str(short_text)]) == 0
    shown = capsys.readouterr().out
    assert "before ... Paris." in shown and "now    ... Rome" in shown
    assert shown.count("rephrased") == 3 and shown.count("neighbour") == 3
    assert main(["undo", DEFAULT_LOG, "1"]) == 0
    capsys.readouterr()
    assert main(["ask", DEFAULT_LOG, "The capital of France is"]) == 0
    assert "now    ... Paris." in capsys.readouterr().out


def test_a_run_with_the_defaults(here, short_text, capfd):
    """Real facts in the real model: no more is given than a small number of everything."""
    small = ["edits=2", "method=memit", f"model.hparams={short_text}", "evaluation.retained=10"]
    small += ["evaluation.fluency=0", "evaluation.perplexity=2", "output_dir=out"]
    assert main(small) == 0
    out = capfd.readouterr().out
    assert out.startswith(f"MEMIT on {NAME}: 2 sequential edits of real-world")
    assert "easyedit-neuron undo out 1" in out
    summary = json.loads((here / "out" / "summary.json").read_text())
    assert summary["results"]["final"]["rewrite_acc"] > 0.8
    assert summary["results"]["before"]["retained"] == 1.0
