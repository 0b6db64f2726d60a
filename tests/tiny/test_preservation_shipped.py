"""Subjects that are edited again and again, on the shipped model."""

import collections
import json

from easyedit_neuron import resources
from easyedit_neuron.cli import main


def test_earlier_edits_of_a_subject_stay(tmp_path, monkeypatch):
    """Two subjects, five edits each: without keep_edits the later ones undo some of the earlier."""
    monkeypatch.setenv("EASYEDIT_NEURON_CACHE", str(tmp_path / "cache"))
    of = collections.defaultdict(list)
    for record in json.loads((resources.ASSETS_DIR / "tiny-world/edits_knowedit.json").read_text()):
        of[record["subject"]].append(record)
    again = [name for name in of if len(of[name]) >= 5][:2]
    (tmp_path / "again.json").write_text(
        json.dumps([of[name][number] for number in range(5) for name in again])
    )
    results = {}
    for keep in (False, True):
        out = tmp_path / str(keep)
        assert (
            main(
                [
                    "method=memit",
                    "model=tiny-llama",
                    "data=tiny-world",
                    f"data.path={tmp_path / 'again.json'}",
                    "edits=10",
                    "method.mom2_n_samples=300",
                    "evaluation=quick",
                    "evaluation.immediate=true",
                    "evaluation.retained=30",
                    "evaluation.perplexity=10",
                    "runner.report=false",
                    "runner.edit_log=false",
                    "--quiet",
                    f"method.keep_edits={keep}",
                    f"output_dir={out}",
                ]
            )
            == 0
        )
        results[keep] = json.loads((out / "summary.json").read_text())["results"]
    assert results[True]["final"]["rewrite_acc"] >= 0.95 > results[False]["final"]["rewrite_acc"]
