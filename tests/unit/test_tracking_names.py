"""Names of callbacks: what is refused before a run reads anything."""

import importlib.util
import json

import pytest

from easyedit_neuron import RunCallback
from easyedit_neuron.cli import main
from easyedit_neuron.errors import HparamsError
from easyedit_neuron.lifelong.run_folder import RunFolder
from easyedit_neuron.lifelong.tracking.callbacks import Callbacks
from easyedit_neuron.lifelong.tracking.names import make_callbacks
from easyedit_neuron.lifelong.tracking.records import flat_config


class Own(RunCallback):
    pass


class Needy(RunCallback):
    def __init__(self, needed):
        raise AssertionError("is not made")


def test_callbacks_by_name():
    names = ["csv", f"{__name__}:Own", "tensorboard"]
    if importlib.util.find_spec("tensorboard") is None:
        names.pop()
    callbacks = make_callbacks(names, "callbacks")
    assert [callback.name for callback in callbacks] == ["csv", "Own", "tensorboard"][: len(names)]


@pytest.mark.parametrize(
    "names, match",
    [
        (["wandbb"], "unknown tracker 'wandbb': did you mean 'wandb'.*package.module:Class"),
        (["csv", "csv"], "'csv' is there twice"),
        (["no.such.module:Thing"], "no.such.module:Thing cannot be loaded: ModuleNotFoundError"),
        ([f"{__name__}:Missing"], "cannot be loaded: AttributeError"),
        ([f"{__name__}:Needy"], "cannot be loaded: TypeError"),
        (["builtins:object"], "is no RunCallback; derive it from easyedit_neuron.RunCallback"),
    ],
)
def test_refused(names, match):
    with pytest.raises(HparamsError, match=match):
        make_callbacks(names, "setting 'runner.callbacks'")


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_a_missing_library_names_the_extra(name, monkeypatch, capsys, tmp_path):
    """On the command line: one line, exit code 2, and no folder."""
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda wanted, *args: None if wanted == name else find(wanted, *args)
    )
    monkeypatch.chdir(tmp_path)
    assert main([f"runner.callbacks=[{name}]", "output_dir=run"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and f"pip install 'easyedit-neuron[{name}]'" in error
    assert not (tmp_path / "run" / "run.json").exists()


def test_flat_config():
    config = {"settings": {"edits": 3, "runner": {"checkpoints": [1, 2]}, "run": None}, "command": "x"}
    flat = {"settings.edits": "3", "settings.runner.checkpoints": "[1, 2]", "settings.run": "null"}
    assert flat_config(config) == flat | {"command": "x"}


def test_no_password_is_handed_on(tmp_path):
    """An address with a login may be among the settings, as that of a judge."""
    given = {"settings": {"evaluation": {"judge": "https://me:secret@host/v1"}, "mail": "me@host"}}
    run = {"command": "python judge='http://me:secret@host/v1'", "model": {}, "identity": given}
    (tmp_path / "run.json").write_text(json.dumps(run))
    seen = []

    class Reader(RunCallback):
        def on_begin(self, run):
            seen.append(run.config)

    Callbacks([Reader()]).begin(RunFolder(tmp_path), [], [], [])
    expected = {"settings": {"evaluation": {"judge": "https://host/v1"}, "mail": "me@host"}}
    assert seen == [{"command": "python judge='http://host/v1'", "model": {}, **expected}]
