"""The scripts of ``examples/`` under the real EasyEdit: our methods with the built-in editor's numbers, and
EasyEdit's own."""

import json
import os

import pytest

from easyedit_neuron import data, resources
from easyedit_neuron.errors import HparamsError, NeuronEditError
from easyedit_neuron.host.loader import find_easyeditor
from helpers.examples import EXAMPLES, quick, quick_file, run

EASYEDITS = {
    "run_nmke_zsre.py": "run_zsre_llama2.py",
    "run_knowedit.py": "run_knowedit_llama2.py",
    "run_counterfact.py": "run_AlphaEdit_editing.py",
    "run_lifelong.py": "run_wise_editing.py",
}


@pytest.fixture(autouse=True)
def both_hosts(easyeditor, tmp_path, monkeypatch):
    monkeypatch.setenv("EASYEDIT_NEURON_CACHE", str(tmp_path / "cache"))
    return lambda host: monkeypatch.setenv("EASYEDIT_NEURON_HOST", host)


@pytest.mark.parametrize("example, easyedit_example", EASYEDITS.items())
def test_as_short_as_easyedits(example, easyedit_example):
    files = EXAMPLES / example, find_easyeditor().parent / "examples" / easyedit_example
    lengths = [len(path.read_text(encoding="utf-8").splitlines()) for path in files]
    assert lengths[0] <= lengths[1]


@pytest.mark.parametrize("method", ["NMKE", "PNKE", "FiNE", "KNE"])
def test_our_methods_give_the_same_numbers_under_both(both_hosts, method, tmp_path):
    file = quick(method, tmp_path)
    for host in ("easyedit", "builtin"):
        both_hosts(host)
        run(
            "run_counterfact.py",
            "--editing_method",
            method,
            "--hparams_dir",
            file,
            "--ds_size",
            2,
            "--sequential_edit",
            "--output_dir",
            host,
        )
    name = f"tiny-llama_{method}_N=2_Sequential=True.json"
    easyedit_metrics, builtin_metrics = (
        json.loads((tmp_path / host / name).read_text()) for host in ("easyedit", "builtin")
    )
    assert easyedit_metrics == builtin_metrics and easyedit_metrics[0]["final"]["rewrite_acc"]
    assert (tmp_path / "logs").is_dir()  # EasyEdit's, so its editor was at work


@pytest.mark.parametrize("method", ["GRACE", "LoRA"])
def test_easyedits_own_methods(both_hosts, method, tmp_path):
    both_hosts("easyedit")
    run(
        "run_nmke_zsre.py",
        "--editing_method",
        method,
        "--hparams_dir",
        f"{method}/tiny-llama",
        "--ds_size",
        1,
    )
    (metric,) = json.loads((tmp_path / "output" / f"{method}_results.json").read_text())
    assert metric["requested_rewrite"] == data.load("tiny-world", "zsre", 1)[0]
    assert metric["post"]["rewrite_acc"][0] > metric["pre"]["rewrite_acc"][0]


def test_a_file_of_easyedits(both_hosts, tmp_path, capsys):
    both_hosts("easyedit")
    source = find_easyeditor().parent / "hparams" / "FT" / "llama-7b.yaml"
    file = quick_file(source, tmp_path, model_name="tiny-llama", device="cpu", layers=[2])
    run("run_knowedit.py", "--editing_method", "FT", "--hparams_dir", file, "--ds_size", 2)
    assert "Overall_locality: " in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        run(
            "run_lifelong.py",
            "--editing_method",
            "FT",
            "--hparams_dir",
            file,
            "--ds_size",
            2,
            "--output_dir",
            "out",
            "--",
            "evaluation=quick",
            "runner.report=false",
        )
    assert stop.value.code == 0
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["method"] == "EasyEdit:FT"


def test_what_does_not_go_together(both_hosts, tmp_path):
    both_hosts("easyedit")
    with pytest.raises(
        HparamsError, match="not hyperparameters of EasyEdit's FTHyperParams.*EASYEDIT_NEURON_HOST=builtin"
    ):
        run("run_nmke_zsre.py", "--editing_method", "FT", "--hparams_dir", quick("FT", tmp_path))
    with pytest.raises(NeuronEditError, match="unknown method 'ft': EasyEdit has .*FT"):
        run("run_nmke_zsre.py", "--editing_method", "ft", "--hparams_dir", "FT/tiny-llama")


@pytest.mark.skipif(not os.environ.get("EASYEDIT_NEURON_DATA"), reason="real data: EASYEDIT_NEURON_DATA")
@pytest.mark.parametrize(
    "script, name",
    [
        ("run_nmke_zsre.py", "zsre"),
        ("run_counterfact.py", "counterfact/counterfact-edit.json"),
        ("run_knowedit.py", "knowedit/wiki_recent_recent_train.json"),
    ],
)
def test_real_files(both_hosts, tmp_path, script, name, capsys):
    both_hosts("easyedit")
    path = os.path.join(os.environ["EASYEDIT_NEURON_DATA"], name)
    file = resources.easyedit_hparams("FT", "tiny-llama")
    run(script, "--editing_method", "FT", "--hparams_dir", file, "--ds_size", 2, "--data_dir", path)
    assert capsys.readouterr().out.rstrip().endswith(".json")
