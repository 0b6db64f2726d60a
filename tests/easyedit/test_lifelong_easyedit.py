"""EasyEdit's own methods in the runner: numbers, state in their modules, methods that replace layers."""

import importlib
import json
import re
from pathlib import Path

import pytest
import torch
import yaml

from easyedit_neuron.cli import INTERRUPTED, main
from easyedit_neuron.errors import HostError
from easyedit_neuron.host.loader import find_easyeditor
from easyedit_neuron.lifelong import engine
from easyedit_neuron.lifelong.easyedit_adapters import NO_EDITS, STATE_VARIABLES
from easyedit_neuron.lifelong.easyedit_method import EasyEditMethod
from helpers.lifelong_runs import make_world, outcome
from helpers.parity import TEMPLATES


@pytest.fixture(scope="module")
def world(tmp_path_factory, easyeditor):
    folder = tmp_path_factory.mktemp("world") / "tiny-llama"  # EasyEdit recognizes models by the path
    folder.mkdir()
    return make_world(folder, count=6)


@pytest.fixture
def command(world, tmp_path, capfd):
    """``command(alg, file, **fields)``: arguments of a run of EasyEdit's method with the fields of one of its
    files changed."""

    def arguments(alg, file, **fields):
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

    return arguments


def test_fine_tuning(command, tmp_path):
    assert main([*command("FT", "FT/llama-7b.yaml", layers=[1], num_steps=3, lr=0.01), "run=ft"]) == 0
    summary = json.loads((tmp_path / "results/ft/summary.json").read_text())
    assert summary["method"] == "EasyEdit:FT"
    assert list(summary["weights"]) == ["model.layers.1.mlp.down_proj.weight"]
    assert summary["results"]["final"]["rewrite_acc"] >= 0 and summary["drift"]


@pytest.mark.parametrize("alg, file", [("AlphaEdit", "llama3-8b"), ("ROME", "llama-7b")])
def test_state_in_modules_is_saved_and_reset(alg, file, command, world, tmp_path, monkeypatch):
    """AlphaEdit keeps C_p, and both the context templates, in variables of their modules: an interrupted run
    continues with them, another run begins without them. ROME's covariance is of a text of ours."""
    projector = torch.eye(48).repeat(2, 1, 1) - 0.5 / 48
    torch.save(projector, tmp_path / "P.pt")
    stats_fields = {
        "mom2_dataset": str(world / "text.txt"),
        "mom2_n_samples": 20,
        "stats_dir": str(tmp_path / "stats"),
    }
    fields = {
        "AlphaEdit": {"layers": [1, 2], "L2": 0.1, "P_loc": str(tmp_path / "P.pt")},
        "ROME": {"layers": [1], "mom2_adjustment": True, **stats_fields},
    }[alg]
    arguments = command(
        alg, f"{alg}/{file}.yaml", v_loss_layer=3, v_num_grad_steps=2, **fields, **TEMPLATES["llama"]
    )
    assert main([*arguments, "run=whole"]) == 0
    save = engine.Engine._save

    def save_and_die(self):
        save(self)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(engine.Engine, "_save", save_and_die)
        assert main([*arguments, "run=cut"]) == INTERRUPTED
    EasyEditMethod(alg)  # as in a new process, nothing is left in the module
    assert main([*arguments, "run=cut"]) == 0
    assert outcome(tmp_path / "results/cut") == outcome(tmp_path / "results/whole")
    assert json.loads((tmp_path / "results/cut/summary.json").read_text())["failed"] == 0


def test_the_table_of_state_is_complete(easyeditor):
    """It has all variables that functions of EasyEdit's methods assign, except one that is never read."""
    algorithms = importlib.import_module("easyeditor.util.alg_dict").ALG_DICT
    unused = {("CORE", "compute_z", "CONTEXT_TEMPLATES_CACHE")}
    for alg, function in algorithms.items():
        if not function.__module__.startswith("easyeditor.") or alg in NO_EDITS:
            continue
        package = function.__module__.rpartition(".")[0]
        folder = Path(importlib.import_module(package).__file__).parent
        assigned = {
            (alg, path.stem, name.strip())
            for path in folder.glob("*.py")
            for names in re.findall(r"^\s+global (.*)$", path.read_text(), re.M)
            for name in names.split(",")
        }
        listed = {
            (alg, module, name) for module, names in STATE_VARIABLES.get(alg, {}).items() for name in names
        }
        assert assigned - unused <= listed, alg
        for module, variables in STATE_VARIABLES.get(alg, {}).items():
            loaded = vars(importlib.import_module(f"{package}.{module}"))
            assert all(name in loaded or name in ("P", "cache_c") for name in variables), (alg, module)


def test_a_method_that_wraps_a_layer(command, tmp_path):
    """GRACE replaces a module: it is measured, and its weights are neither saved nor written."""
    arguments = command(
        "GRACE", "GRACE/llama-7b.yaml", inner_params=["model.layers[2].mlp.down_proj.weight"], n_iter=3
    )
    assert main([*arguments, "run=grace"]) == 0
    files = {path.name for path in (tmp_path / "results/grace").iterdir()}
    assert "summary.json" in files and "weights.safetensors" not in files


def test_a_failing_edit_is_undone_with_the_state_in_modules(easyeditor):
    from easyeditor.models.alphaedit import AlphaEdit_main as module

    method = EasyEditMethod("AlphaEdit")
    assert not hasattr(module, "cache_c") and module.cache_c_new is False
    module.cache_c, module.cache_c_new = torch.ones(2, 2), True
    copies = method.module_variables()
    module.cache_c += 1
    module.P = torch.zeros(1)
    method.restore_module_variables(copies)
    assert torch.equal(module.cache_c, torch.ones(2, 2)) and module.cache_c_new is True
    assert not hasattr(module, "P")
    EasyEditMethod("AlphaEdit")
    assert not hasattr(module, "cache_c") and module.cache_c_new is False


def test_mistakes(command, capfd):
    with pytest.raises(HostError, match="did you mean 'GRACE'"):
        EasyEditMethod("GRACES")
    arguments = command("FT", "FT/llama-7b.yaml")
    assert main([*arguments, "+method.layerz=[1]"]) == 2
    assert "unknown field 'layerz'" in capfd.readouterr().err
    assert main(["method=easyedit", "edits=2"]) == 2 and "method.alg" in capfd.readouterr().err
    assert main([*arguments, "method.alg=ROME"]) == 2
    assert "not hyperparameters of EasyEdit's ROME" in capfd.readouterr().err
