"""Composition and checking of the command line, without a model."""

import os
import shlex
import subprocess
import sys

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from easyedit_neuron import data, resources
from easyedit_neuron.cli import main
from easyedit_neuron.cli.run import _requests
from easyedit_neuron.cli.settings import read_hyperparameters, read_settings, register_groups
from easyedit_neuron.errors import HparamsError
from easyedit_neuron.masks import chosen_mask


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EASYEDIT_NEURON_CACHE", str(tmp_path / "cache"))


TINY = ("method=nmke", "model=tiny-llama", "data=tiny-world")


def settings_of(*overrides, world=TINY):
    register_groups()
    with initialize_config_dir(str(resources.CONF_DIR), version_base="1.3"):
        given = {override.partition("=")[0] for override in overrides}
        world = [override for override in world if override.partition("=")[0] not in given]
        return read_settings(compose("config", [*world, *overrides]))


def test_defaults():
    settings = settings_of("output_dir=out", world=())
    names = settings.method_name, settings.model.name, settings.data.path, settings.data.part
    assert names == ("Lasting", "smollm2-135m-instruct", "real-world", "report")
    assert (settings.edits, settings.batch_size, settings.seed, settings.method) == (100, 1, 0, {})
    hparams, path = read_hyperparameters(settings)
    model = "smollm2-135m-instruct"
    assert hparams.alg_name == "Lasting" and hparams.model_name == resources.model_path(model)
    assert path == resources.hparams_path(f"Lasting/{model}")


def test_locality_in_the_chat_needs_edits_in_the_chat():
    settings = settings_of("output_dir=out", "evaluation.locality_in_chat=true")
    with pytest.raises(HparamsError, match="evaluation.locality_in_chat.*method.use_chat_template=true"):
        read_hyperparameters(settings)
    words = ("evaluation.locality_in_chat=true", "method.use_chat_template=true")
    assert read_hyperparameters(settings_of("output_dir=out", *words))[0].use_chat_template


def test_command_line_goes_on_top_of_the_file(tmp_path):
    settings = settings_of(
        "output_dir=out",
        "method.mask_stage=solve",
        "method.v_lr=0.25",
        "batch_size=4",
        "seed=7",
        "method.layers=[0]",
    )
    assert settings.method == {"mask_stage": "solve", "v_lr": 0.25, "layers": [0]}
    hparams, path = read_hyperparameters(settings)
    file_values = OmegaConf.load(path)
    assert (hparams.mask_stage, hparams.v_lr, hparams.layers, hparams.batch_size, hparams.seed) == (
        "solve",
        0.25,
        [0],
        4,
        7,
    )
    assert hparams.kl_factor == file_values.kl_factor and hparams.tau == file_values.tau
    # Statistics are not strewn over the working directory.
    assert hparams.stats_dir == str(tmp_path / "cache" / "stats")
    named = read_hyperparameters(settings_of("output_dir=out", "method.stats_dir=here"))[0]
    assert named.stats_dir == "here"


def test_a_shared_ensemble_is_of_the_data_that_is_edited():
    def data_of(*overrides):
        return read_hyperparameters(settings_of("output_dir=out", "method=kne", *overrides))[
            0
        ].localization_data

    shared = ("method.localize=shared", "data=file", "data.path=mine.json")
    assert (
        data_of() is None
        and data_of(*shared) == "mine.json"
        and data_of("method.localize=shared") == "tiny-world"
    )
    assert data_of(*shared, "method.localization_data=other.json") == "other.json"


@pytest.mark.parametrize("method", ["alphaedit", "memit", "nmke"])
@pytest.mark.parametrize(
    "options",
    [
        ["method.mask_options={top_k: 7, prompt_batch: 4}"],
        ["+method.mask_options.top_k=7", "+method.mask_options.prompt_batch=4"],
    ],
)
def test_a_mask_and_its_options(method, options):
    hparams, _ = read_hyperparameters(
        settings_of("output_dir=out", f"method={method}", "method.mask=contribution", *options)
    )
    chosen = chosen_mask(hparams)
    assert (chosen.scores.name, chosen.options.top_k, chosen.scores_options.prompt_batch) == (
        "contribution",
        7,
        4,
    )


@pytest.mark.parametrize(
    "method, name", [("alphaedit", "AlphaEdit"), ("ft", "FT"), ("memit", "MEMIT"), ("rome", "ROME")]
)
def test_other_methods(method, name):
    hparams, _ = read_hyperparameters(settings_of("output_dir=out", f"method={method}"))
    assert hparams.alg_name == name


@pytest.mark.parametrize("model", ["llama3.1-8b-instruct", "gpt-j-6B"])
def test_model_picks_the_file_and_path_the_weights(model):
    hparams, path = read_hyperparameters(
        settings_of("output_dir=out", f"model={model}", "model.path=/models/own")
    )
    assert path.name == f"{model}.yaml" and hparams.model_name == "/models/own"


def test_a_preset_comes_between_the_file_and_the_command_line():
    given = ("method=nmke", "method.preset=paper", "method.ties=exclude")
    hparams, _ = read_hyperparameters(settings_of("output_dir=out", *given))
    assert (hparams.score_form, hparams.mask_stage, hparams.ties) == ("raw", "post", "exclude")
    hparams, _ = read_hyperparameters(settings_of("output_dir=out", "method=kne", "method.preset=paper"))
    assert (hparams.localize, hparams.localization_data) == ("shared", "tiny-world")
    with pytest.raises(HparamsError, match="setting 'method': field 'preset': unknown preset 'papers'"):
        read_hyperparameters(settings_of("output_dir=out", "method=pnke", "method.preset=papers"))


def test_all_edits_of_the_data():
    settings = settings_of("output_dir=out", "edits=all")
    assert settings.edits == "all" and len(_requests(settings)[0]) == len(data.load("tiny-world"))
    few = settings_of("output_dir=out", "edits=3", "data.skip=1")
    assert _requests(few) == (data.load("tiny-world", size=4)[1:], None)
    drawn = settings_of("output_dir=out", "edits=all", "data.sample_seed=2", "data.skip=10")
    requests, numbers = _requests(drawn)
    assert sorted(numbers) == list(range(len(requests)))
    with pytest.raises(HparamsError, match="setting.*'edits'"):
        settings_of("output_dir=out", "edits=some")


def test_own_file(tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text(resources.hparams_path("NMKE/tiny-llama").read_text().replace("v_lr: ", "v_lr: 0"))
    hparams, path = read_hyperparameters(settings_of("output_dir=out", f"model.hparams={own}"))
    assert path == own
    own.write_text("alg_name: NMKE\nlayerz: [1]\n")
    with pytest.raises(HparamsError, match="own.yaml: unknown field 'layerz'.*'layers'"):
        read_hyperparameters(settings_of("output_dir=out", f"model.hparams={own}"))
    own.write_text(resources.hparams_path("FT/tiny-llama").read_text())
    with pytest.raises(HparamsError, match="own.yaml"):
        read_hyperparameters(settings_of("output_dir=out", f"model.hparams={own}"))


@pytest.mark.parametrize(
    "arguments, part",
    [
        (["foo=1"], "unknown setting 'foo'"),
        (["edit=5"], "did you mean 'edits'"),
        (["+foo=1"], "unknown field 'foo'"),
        (["method.vlr=1"], "did you mean 'method.v_lr'"),
        (["method=nmke", "method.mask_stag=solve"], "did you mean 'method.mask_stage'"),
        (["+method.foo=1"], "unknown field 'foo'"),
        (["method=ft", "method.mask_stage=solve"], "unknown setting 'method.mask_stage' of method ft"),
        (
            ["method=memit", "method.mask=contribtion"],
            "'mask': 'contribtion' is unknown: did you mean 'contribution'",
        ),
        (
            ["method=nmke", "method.mask_options.top_k=5"],
            "+method.mask_options.top_k=... or method.mask_options={top_k: ...}",
        ),
        (
            ["method=memit", "method.mask=ig", "+method.mask_options.topk=5"],
            "no option 'topk': did you mean 'top_k'",
        ),
        (["method.batch_size=2"], "has a setting of its own: batch_size="),
        (["evaluation.flunecy=1"], "did you mean 'evaluation.fluency'"),
        (["method=nmk"], "did you mean 'nmke'"),
        (["method=qwertz"], "Known: "),
        (["model=tiny-lama"], "did you mean 'tiny-llama'"),
        (["data=tiny"], "did you mean 'tiny-world'"),
        (["model=[[1]]"], "cannot read the arguments"),
        (["edits=0"], "'edits': must be at least 1"),
        (["edits=many"], "'edits': must be an integer"),
        (["edits=null"], "'edits': must be an integer"),
        (["batch_size=0"], "'batch_size': must be at least 1"),
        (["batch_size=true"], "'batch_size': must be an integer"),
        (["seed=-1"], "'seed'"),
        (["evaluation.batch_size=0"], "'batch_size'"),
        (["evaluation.fluency=-1"], "'fluency'"),
        (["method.v_lr=fast"], "'v_lr': must be a number"),
        (["method=nmke", "method.mask_stage=sovle"], "did you mean 'solve'"),
        (["method.layers=3"], "'layers': must be a list"),
        (["data=file"], "data.path="),
        (["data=file", "data.path=none.json"], "none.json"),
        (["data.shape=zrse"], "unknown shape 'zrse'"),
        (["data.invalid=drop"], "'invalid'"),
        (["method=lasting", "model=gpt2-xl"], "only for: smollm2-135m-instruct, tiny-llama;"),
        (["model.hparams=nowhere.yaml"], "nowhere.yaml"),
        (["~method"], "method=nmke"),
        (["edits=["], "cannot read the argument 'edits=['"),
        (["edits"], "edits"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(arguments, part, capfd):
    assert main([*arguments, "output_dir=out"]) == 2
    out, err = capfd.readouterr()
    assert out == "" and part in err
    assert err.startswith("easyedit-neuron: error: ") and err.count("\n") == 1


@pytest.mark.parametrize("more", [[], ["--multirun", "seed=0,1"]])
def test_a_folder_that_cannot_be_made_is_one_line_too(more, tmp_path, capfd):
    (tmp_path / "file").write_text("")
    assert main([*more, f"output_dir={tmp_path / 'file' / 'run'}"]) == 2
    out, err = capfd.readouterr()
    assert (
        err.count("\n") == 1
        and "Not a directory; output_dir=... names the folder" in err
        and "Traceback" not in out
    )


def test_a_file_that_fails_in_the_job_is_not_taken_for_the_folder(tmp_path, monkeypatch):
    def run(*_):
        raise PermissionError(13, "Permission denied", "statistics.npz")

    monkeypatch.setattr("easyedit_neuron.cli.run.run", run)
    with pytest.raises(PermissionError, match="statistics.npz"):
        main([f"output_dir={tmp_path}"])


def test_process_exit_code_and_no_traceback(tmp_path):
    command = [sys.executable, "-m", "easyedit_neuron", "edits=0", "output_dir=out"]
    environment = {**os.environ, "PYTHONPATH": str(resources.PACKAGE_DIR.parent)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
    assert {path.name for path in tmp_path.iterdir()} <= {"out"}


def test_help_needs_no_torch():
    code = (
        "import sys; from easyedit_neuron.cli import main; main(['--help']); sys.exit('torch' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(resources.PACKAGE_DIR.parent)}
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment).returncode == 0


def test_help_and_config(capfd):
    assert main(["--help"]) == 0
    shown = capfd.readouterr().out
    assert "method: alphaedit" in shown and "name: Lasting" in shown
    assert main(["--cfg", "job"]) == 0
    assert "others_weight: ???" in capfd.readouterr().out


@pytest.mark.parametrize(
    "value", ["my edits (v=1).json", "~/edits.json", "Zoë Núñez.json", 'the "old" ones.json', "it's.json"]
)
def test_a_value_that_needs_quotes_is_shown_with_them(value, capsys, tmp_path, monkeypatch):
    """The shown argument, pasted into a shell, is the value; Hydra then looks for that file."""
    monkeypatch.chdir(tmp_path)
    command = ["data=file", "method=fine", "edits=1", "output_dir=out"]
    assert main([*command, f"data.path={value}"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "need quotes inside of the shell's: " in said
    (argument,) = shlex.split(said.strip().rsplit("shell's: ", 1)[1])
    assert main([*command, argument]) == 2
    assert f"no data file {value!r}" in capsys.readouterr().err


def test_no_quotes_where_they_would_not_help(capsys):
    assert main(["edits =[", "output_dir=out"]) == 2
    assert "cannot read the argument 'edits =['" in capsys.readouterr().err
