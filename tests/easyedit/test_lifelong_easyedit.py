"""EasyEdit's own methods in the runner: their numbers, their hidden state, and methods that do more than
change weights."""

import json

import pytest
import torch
import yaml

from easyedit_neuron.cli import main
from easyedit_neuron.errors import HostError
from easyedit_neuron.host.loader import find_easyeditor
from easyedit_neuron.lifelong import engine
from easyedit_neuron.lifelong.easyedit_method import EasyEditMethod
from helpers.lifelong_runs import make_world, outcome
from helpers.parity import TEMPLATES


@pytest.fixture(scope="module")
def world(tmp_path_factory, easyeditor):
    folder = tmp_path_factory.mktemp("world") / "tiny-llama"  # EasyEdit goes by the path
    folder.mkdir()
    return make_world(folder, count=6)


@pytest.fixture
def command(world, tmp_path, capfd):
    """``command(alg, file, **fields)``: arguments of a run of EasyEdit's method with the fields of one of its
    files changed."""

    def make(alg, file, **fields):
        values = yaml.safe_load((find_easyeditor().parent / "hparams" / file).read_text())
        changed = {**values, "device": "cpu", "model_name": str(world / "model"), **fields}
        (tmp_path / f"{alg}.yaml").write_text(yaml.safe_dump(changed))
        return [
            "method=easyedit",
            f"method.alg={alg}",
            f"model.hparams={tmp_path}/{alg}.yaml",
            "data=file",
            f"data.path={world}/edits.json",
            "evaluation=quick",
            "edits=6",
            "runner.checkpoints=[3]",
            "--quiet",
        ]

    return make


def test_fine_tuning(command, tmp_path):
    assert main([*command("FT", "FT/llama-7b.yaml", layers=[1], num_steps=3, lr=0.01), "run=ft"]) == 0
    summary = json.loads((tmp_path / "results/ft/summary.json").read_text())
    assert summary["method"] == "EasyEdit:FT" and list(summary["weights"]) == [
        "model.layers.1.mlp.down_proj.weight"
    ]
    assert summary["results"]["final"]["rewrite_acc"] >= 0 and summary["drift"]


def test_hidden_state_is_saved_and_reset(command, tmp_path, monkeypatch, capfd):
    """AlphaEdit keeps C_p in a variable of its module: an interrupted run goes on with it, another run begins
    without it."""
    projector = torch.eye(48).repeat(2, 1, 1) - 0.5 / 48
    torch.save(projector, tmp_path / "P.pt")
    arguments = command(
        "AlphaEdit",
        "AlphaEdit/llama3-8b.yaml",
        layers=[1, 2],
        v_loss_layer=3,
        v_num_grad_steps=2,
        L2=0.1,
        P_loc=str(tmp_path / "P.pt"),
        **TEMPLATES["llama"],
    )
    assert main([*arguments, "run=whole"]) == 0
    save = engine.Engine._save

    def save_and_die(self):
        save(self)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(engine.Engine, "_save", save_and_die)
        main([*arguments, "run=cut"])
    EasyEditMethod("AlphaEdit")  # as in a new process, nothing is left in the module
    assert main([*arguments, "run=cut"]) == 0
    assert outcome(tmp_path / "results/cut") == outcome(tmp_path / "results/whole")


def test_a_method_that_wraps_a_layer(command, tmp_path):
    """GRACE replaces a module: it is measured, and neither saved nor called whole."""
    arguments = command(
        "GRACE", "GRACE/llama-7b.yaml", inner_params=["model.layers[2].mlp.down_proj.weight"], n_iter=3
    )
    assert main([*arguments, "run=grace"]) == 0
    files = {path.name for path in (tmp_path / "results/grace").iterdir()}
    assert "summary.json" in files and "weights.safetensors" not in files


def test_a_failing_edit_is_undone_with_the_hidden_state(easyeditor):
    from easyeditor.models.alphaedit import AlphaEdit_main as module

    method = EasyEditMethod("AlphaEdit")
    assert not hasattr(module, "cache_c") and module.cache_c_new is False
    module.cache_c, module.cache_c_new = torch.ones(2, 2), True
    copies = method.module_variables()
    module.cache_c += 1
    module.P = torch.zeros(1)
    method.restore_module_variables(copies)
    assert (
        torch.equal(module.cache_c, torch.ones(2, 2))
        and module.cache_c_new is True
        and not hasattr(module, "P")
    )
    EasyEditMethod("AlphaEdit")
    assert not hasattr(module, "cache_c") and module.cache_c_new is False


def test_mistakes(command, capfd):
    with pytest.raises(HostError, match="did you mean 'GRACE'"):
        EasyEditMethod("GRACES")
    arguments = command("FT", "FT/llama-7b.yaml")
    assert (
        main([*arguments, "+method.layerz=[1]"]) == 2 and "unknown field 'layerz'" in capfd.readouterr().err
    )
    assert main(["method=easyedit", "edits=2"]) == 2 and "method.alg" in capfd.readouterr().err
    assert (
        main([*arguments, "method.alg=ROME"]) == 2
        and "not hyperparameters of EasyEdit's ROME" in capfd.readouterr().err
    )
