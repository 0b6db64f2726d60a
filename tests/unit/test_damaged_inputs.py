"""Wrong arguments and files that the fuzz test has brought up, a plain case of each kind."""

import gzip

import pytest
import torch

from easyedit_neuron import MEMITHyperParams, data
from easyedit_neuron.cli import app, main
from easyedit_neuron.cli.settings import run_folder
from easyedit_neuron.edits.request import prepare
from easyedit_neuron.errors import DataError, HostError, HparamsError, RequestError
from easyedit_neuron.evaluation.sections import sections
from easyedit_neuron.host.base_editor import CallOptions
from easyedit_neuron.host.checks import check_count, check_kind
from easyedit_neuron.host.prepare import prepare_requests
from easyedit_neuron.report.runs import read_run
from helpers.run_folders import run_folder as write_run

DEEP = []
for _ in range(3000):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    "arguments, problem",
    [
        (dict(prompts=3, target_new="b"), "prompts must be a text or a list of texts, not 3"),
        (dict(prompts=b"a", target_new="b"), "prompts must be a text or a list of texts"),
        (dict(prompts=["a", 3], target_new=["b", "c"]), "prompts: entry 1 must be a text, not 3"),
        (dict(prompts=[["a"]], target_new=["b"]), "prompts: entry 0 must be a text"),
        (dict(prompts="a", target_new=DEEP), "request 0 is nested more than 60 levels deep"),
        (dict(prompts="a \ud800", target_new="b"), "request 0 holds half of a surrogate pair"),
        (dict(prompts="a", target_new="b", subject=[10**5000]), "subject: a int of too many digits"),
        (dict(prompts="a", target_new="b", subject=3), "subject must be a text or a list of texts"),
        (dict(prompts="a", target_new="b", locality_inputs=[1]), "locality_inputs must be a dictionary"),
    ],
)
def test_arguments_of_the_editor(arguments, problem):
    with pytest.raises(RequestError, match=problem):
        prepare_requests(**arguments)


@pytest.mark.parametrize(
    "value", ["é", 0, -1, True, 2.5, 10**5000, None], ids=lambda value: type(value).__name__
)
def test_numbers_of_tokens(value):
    with pytest.raises(HostError, match="max_new_tokens must be a whole number from 1 on"):
        check_count("max_new_tokens", value)


def test_keywords_of_other_types():
    with pytest.raises(HostError, match="pre_edit must be of type list or tuple, not 3"):
        check_kind("pre_edit", 3, (list, tuple))
    check_kind("pre_edit", None, list)
    with pytest.raises(HostError, match="final_evaluation must be of type bool, not "):
        CallOptions.read("edit_requests", True, False, {"final_evaluation": torch.ones(2)})


def test_requests_of_other_types():
    with pytest.raises(RequestError, match="a request must be a dictionary, not 'text'"):
        sections(["text"])
    with pytest.raises(RequestError, match="portability must be a dictionary of kinds, not '{}'"):
        sections([{"prompt": "a", "target_new": "b", "portability": "{}"}])
    with pytest.raises(
        RequestError, match="'target_new' must be a non-empty string, got an? int of too many"
    ):
        prepare([{"prompt": "a", "subject": "a", "target_new": 10**5000}])


@pytest.mark.parametrize(
    "name, content, problem",
    [
        ("a.json", b"[" * 3000 + b"]" * 3000, "levels deep"),
        ("a.json", b"[" + b"9" * 5000 + b"]", "thousands of digits"),
        ("a.jsonl", b'{"a": 1}\n{"a": "\\ud800"}\n', "line 2 holds half of a surrogate pair"),
        ("a.json.gz", gzip.compress(b"[1]" * 999, mtime=0)[:14] + b"\xff" * 9, "cannot be read"),
    ],
)
def test_data_files(tmp_path, name, content, problem):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=problem):
        data.load(tmp_path / name)


@pytest.mark.parametrize(
    "options", [{"part": []}, {"shape": DEEP}, {"invalid": 10**5000}, {"size": 10**5000}]
)
def test_options_of_data(options):
    with pytest.raises(DataError):
        data.load("tiny-world", **options)


@pytest.mark.parametrize(
    "text", ["{}: 1\n", "? [a]\n: 1\n", "layers: " + "[" * 3000 + "]" * 3000, "a: &a [*a]"]
)
def test_yaml(tmp_path, text):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(HparamsError, match="a.yaml: cannot be read"):
        MEMITHyperParams.from_hparams(tmp_path / "a.yaml")


def test_dictionaries_of_hyperparameters():
    with pytest.raises(HparamsError, match="must be a mapping of field names to values, not 3"):
        MEMITHyperParams.from_dict(3)
    with pytest.raises(HparamsError, match="changes must be a mapping"):
        MEMITHyperParams.from_hparams("MEMIT/tiny-llama").override([1])
    with pytest.raises(HparamsError, match="field 'model_name'.*half of a surrogate pair"):
        MEMITHyperParams.from_hparams("MEMIT/tiny-llama").override({"model_name": "\ud800"})


@pytest.mark.parametrize("run", ["../../x", "/x", "..", "a/../../b", "", "..\\x", "a\nb"])
def test_a_run_stays_below_results(run):
    with pytest.raises(HparamsError, match="is no name of a folder below results; output_dir="):
        run_folder(run, "day", "time")
    assert run_folder("a/b", "day", "time") == "results/a/b"


@pytest.mark.parametrize("argument", ["=0", "seed=" + "9" * 5000, "run=../../x"])
def test_arguments_that_cannot_be_read(argument, here, capfd):
    assert main(["model=tiny-llama", "data=tiny-world", "method=memit", argument]) == 2
    err = capfd.readouterr().err
    assert len(err.splitlines()) == 1 and err.startswith("easyedit-neuron: error: ") and len(err) < 3000
    assert not list(here.parent.rglob("x")) and not list(here.iterdir())


@pytest.mark.parametrize(
    "old, new", [('"wasserstein_norms": ', '"x": "y", "w": '), ('"seconds": {', '"seconds": {"edit2": "1", ')]
)
def test_a_checkpoint_with_texts_for_numbers(tmp_path, old, new):
    write_run(tmp_path / "run", edits=12)
    path = tmp_path / "run" / "checkpoints.jsonl"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(DataError, match=r"checkpoints.jsonl, line \d+: not a checkpoint of a run"):
        read_run(tmp_path / "run")


def test_a_folder_that_is_read_only(monkeypatch, capfd):
    """What logging says of a file that it may not write; root, as whom tests may run, may write any."""

    def refuse():
        problem = PermissionError(13, "Permission denied", "run/run.log")
        raise ValueError("Unable to configure handler 'file'") from problem

    monkeypatch.setattr(app.hydra, "main", lambda **_: lambda job: refuse)
    assert app.run_command_line([]) == 2
    remedy = "output_dir=... names the folder for the results"
    assert capfd.readouterr().err == f"easyedit-neuron: error: run/run.log: Permission denied; {remedy}\n"


def test_sequential_edit_is_a_truth_value():
    with pytest.raises(HostError, match="sequential_edit must be of type bool or int"):
        CallOptions.read("edit_requests", torch.zeros(2), False, {})
