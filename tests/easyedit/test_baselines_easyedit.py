"""EasyEdit's methods on the shipped model, from the shipped files, by one command: two edits each."""

import importlib
import importlib.util
import json

import pytest
import torch

from easyedit_neuron import data, resources
from easyedit_neuron.arch.view import ModelView
from easyedit_neuron.cli import main
from easyedit_neuron.errors import HparamsError
from easyedit_neuron.lifelong.easyedit_method import EasyEditMethod
from easyedit_neuron.models.alphaedit.alphaedit_hparams import AlphaEditHyperParams
from easyedit_neuron.statistics.cache import Statistics

FEW = "+method.mom2_n_samples=300"
# GRACE looks at one position: its four prompts have 7, 7, 8 and 5 tokens
SURE = {
    "ROME": [FEW],
    "MEMIT": [FEW],
    "AlphaEdit": [FEW],
    "GRACE": ["edits=4", "evaluation.ability=[tiny_world_cloze]", "evaluation.ability_limit=2"],
}
TRAINED = {
    "FT": [],
    "FT-L": ["+method.objective_optimization=prompt_last"],
    "LoRA": ["+method.num_steps=20"],
    "AdaLoRA": ["+method.num_steps=70", "+method.lora_type=adalora"],
}
"""The ones know all their edits afterwards; the others have come nearer."""
ALG = {"FT-L": "FT", "AdaLoRA": "LoRA"}


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def command(cache, monkeypatch):
    """``command(name, *settings) -> exit code`` of two edits, in the folder ``out``."""
    monkeypatch.setenv("EASYEDIT_NEURON_CACHE", str(cache))

    def run(name, *settings):
        return main(
            [
                "method=easyedit",
                "model=tiny-llama",
                "data=tiny-world",
                f"method.alg={ALG.get(name, name)}",
                "edits=2",
                "evaluation=quick",
                "evaluation.retained=20",
                "evaluation.perplexity=10",
                "runner.report=false",
                "--quiet",
                "output_dir=out",
                *settings,
            ]
        )

    return run


def results(tmp_path):
    return json.loads((tmp_path / "out/summary.json").read_text())


@pytest.mark.parametrize("name", [*SURE, *TRAINED])
def test_learns_two_edits(name, command, tmp_path):
    assert command(name, *(SURE | TRAINED)[name]) == 0
    summary = results(tmp_path)
    before, final = summary["results"]["before"], summary["results"]["final"]
    assert summary["failed"] == 0 and before["retained"] == 1.0
    assert final["rewrite_acc"] == 1.0 if name in SURE else final["rewrite_acc"] > before["rewrite_acc"]
    assert {path.name for path in tmp_path.iterdir()} <= {"out", "logs"}  # its editor writes ./logs


def test_pmet_pads_on_the_right(command, tmp_path):
    """Padded on the left, as EasyEdit does it, its search ends in NaN and every edit fails."""
    assert command("PMET", FEW) == 0
    summary = results(tmp_path)
    assert summary["failed"] == 0 and list(summary["weights"]) == ["model.layers.1.mlp.down_proj.weight"]


def test_wise_keeps_one_memory(command, tmp_path, monkeypatch):
    from easyeditor.models.wise import WISE as module

    counts = []
    edit = module.WISE.edit
    monkeypatch.setattr(
        module.WISE,
        "edit",
        lambda self, **arguments: (
            edit(self, **arguments),
            counts.append(self.get_adapter_layer().editing_total_cnt),
        ),
    )
    assert command("WISE", "+method.n_iter=2") == 0
    summary = results(tmp_path)
    assert counts == [1, 2] and summary["failed"] == 0
    assert summary["settings"]["evaluation"]["batch_size"] == 1  # it decides for a whole batch
    request = json.loads((tmp_path / "out/edits.jsonl").read_text().splitlines()[0])["request"]
    assert "loc_prompt" not in request  # the runner's own request is as it was


def test_knowledge_neurons(command, tmp_path, capfd):
    code = command("KN")
    if importlib.util.find_spec("einops") is None:
        assert code == 2 and "install einops" in capfd.readouterr().err
    else:
        assert code == 0 and results(tmp_path)["failed"] == 0


@pytest.mark.parametrize("name", ["IKE", "FT-Api", "DeepEdit-Api"])
def test_methods_without_an_edited_model_are_refused_at_once(name, command, tmp_path, capfd):
    assert command(name) == 2
    assert f"EasyEdit's {name} cannot be run here" in capfd.readouterr().err
    assert not (tmp_path / "out/run.json").exists()


def test_statistics_are_ours_and_stay_out_of_the_working_directory(cache, tmp_path, easyeditor):
    """What EasyEdit reads back is our covariance, to the bit, and its projector that of our null space."""
    method = EasyEditMethod("AlphaEdit")
    changes = {"mom2_n_samples": 300, "stats_dir": str(cache / "stats")}
    hparams = method.hyperparameters(resources.easyedit_hparams("AlphaEdit", "tiny-llama"), changes)
    model, tok = method.load_model(hparams)
    module = importlib.import_module("easyeditor.models.alphaedit.AlphaEdit_main")
    hparams_of_ours = AlphaEditHyperParams.from_hparams("AlphaEdit/tiny-llama").override(changes)
    statistics = Statistics(ModelView.of(model), tok, hparams_of_ours)
    easyedit_covariance = module.get_cov(
        model, tok, "model.layers.1.mlp.down_proj", "tiny-world", 300, "float32", hparams=hparams
    )
    assert torch.equal(easyedit_covariance, statistics.covariance(1))
    projector = statistics.null_space(1, 2e-2).project(torch.eye(2048))
    # EasyEdit's projector is from an SVD and ours from an eigen-decomposition, in float32. A direction whose
    # eigenvalue is the threshold up to rounding may be in only one, and adds 1 to the squared distance.
    assert (
        module.P.shape == (1, 2048, 2048) and abs(float(projector.trace()) - float(module.P[0].trace())) < 3.5
    )
    assert float((module.P[0] - projector).norm()) ** 2 < 3.5 < 100 < float(projector.trace()) < 2000
    assert not (tmp_path / "null_space_project.pt").exists()
    (request,) = data.load("tiny-world", size=1)
    assert (
        method(model, tok, [request], hparams).originals and not (tmp_path / "null_space_project.pt").exists()
    )


def test_statistics_of_other_modules_are_not_to_be_had(easyeditor, cache):
    method = EasyEditMethod("PMET")
    changes = {
        "rewrite_module_tmps": ["model.layers.{}.self_attn.o_proj", "model.layers.{}.mlp.down_proj"],
        "stats_dir": str(cache / "stats"),
    }
    hparams = method.hyperparameters(resources.easyedit_hparams("PMET", "tiny-llama"), changes)
    with pytest.raises(
        HparamsError, match="down projections alone, and the method changes model.layers.1.self_attn.o_proj"
    ):
        method.load_model(hparams)
