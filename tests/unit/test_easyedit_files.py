"""Hyperparameters of EasyEdit's own methods for our names of models: shipped, or from EasyEdit's folder."""

import pytest

from easyedit_neuron import resources
from easyedit_neuron.errors import HparamsError
from easyedit_neuron.host import hparams as host_hparams
from easyedit_neuron.host.hparams import easyedit_hparams_file


@pytest.fixture
def easyedit(tmp_path, monkeypatch):
    for name in ("KN/llama3-8b", "KN/llama-7b", "PMET/llama-7b", "GRACE/gpt-j-6b"):
        file = tmp_path / "hparams" / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("alg_name: X\n")
    monkeypatch.setattr(host_hparams, "find_easyeditor", lambda: tmp_path / "easyeditor")
    return tmp_path / "hparams"


@pytest.mark.parametrize(
    ("alg", "model", "file"),
    [
        ("KN", "llama3-8b", "KN/llama3-8b"),
        ("KN", "llama3-8b-instruct", "KN/llama3-8b"),
        ("KN", "llama2-7b-chat", "KN/llama-7b"),
        ("PMET", "llama3-8b", "PMET/llama-7b"),
        ("GRACE", "gpt-j-6B", "GRACE/gpt-j-6b"),
    ],
)
def test_easyedits_file_of_the_architecture_with_our_checkpoint(easyedit, alg, model, file):
    expected = easyedit / f"{file}.yaml", {"model_name": resources.CHECKPOINTS[model]}
    assert easyedit_hparams_file(alg, model) == expected


def test_a_shipped_file_comes_first(easyedit):
    path, changes = easyedit_hparams_file("GRACE", "tiny-llama")
    assert path == resources.easyedit_hparams("GRACE", "tiny-llama") and changes == {}


@pytest.mark.parametrize(
    ("alg", "model"), [("PMET", "gpt2-xl"), ("KN", "llama2-13b"), ("PMET", "smollm2-135m-instruct")]
)
def test_no_file_is_one_error_with_the_remedy(easyedit, alg, model):
    with pytest.raises(HparamsError, match=f"{alg} for '{model}'.*model.hparams="):
        easyedit_hparams_file(alg, model)


def test_without_easyedit_there_are_the_shipped_ones_only(monkeypatch):
    monkeypatch.setattr(host_hparams, "find_easyeditor", lambda: None)
    with pytest.raises(HparamsError, match="KN for 'gpt2-xl'"):
        easyedit_hparams_file("KN", "gpt2-xl")


def test_a_name_means_its_checkpoint_unless_a_folder_has_it(tmp_path, monkeypatch):
    assert resources.model_path("llama3-8b") == "meta-llama/Meta-Llama-3-8B"
    assert resources.model_path("llama3-8b-instruct").endswith("-Instruct")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gpt2-xl").mkdir()
    assert resources.model_path("gpt2-xl") == "gpt2-xl"
