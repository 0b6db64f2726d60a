"""Mistakes under the built-in editor and the double of EasyEdit's: the same error, before any work."""

import pytest

from easyedit_neuron.host.base_editor import BaseEditor
from helpers import traps
from helpers.contract import METHODS, settings
from helpers.fake_easyeditor import load_double
from helpers.matrix import saved
from helpers.tiny_models import tiny_model

pytestmark = pytest.mark.usefixtures("here")
HOSTS = {"built-in": lambda: BaseEditor, "double": lambda: load_double().BaseEditor}
methods = pytest.mark.parametrize("method", METHODS)


@pytest.fixture(scope="module", params=HOSTS)
def editor_class(request):
    return HOSTS[request.param]()


@methods
def test_requests(editor_class, method, folder):
    traps.check_requests(editor_class, method, folder)


@methods
def test_batch_size_with_single_edits(editor_class, method, folder):
    traps.check_batch_size(editor_class, method, folder)


@methods
def test_a_tokenizer_of_another_model(editor_class, method, folder):
    traps.check_foreign_tokenizer(editor_class, method, folder)


@methods
def test_before_loading(editor_class, method, folder, tmp_path, monkeypatch):
    traps.check_before_loading(editor_class, method, folder, tmp_path, monkeypatch)


@pytest.mark.parametrize("method", ["NMKE", "PNKE"])
def test_unreadable_statistics(editor_class, method, folder, here):
    traps.check_statistics(editor_class, method, folder, here)


def test_misleading_paths(folder, tmp_path, monkeypatch):
    """EasyEdit's trap alone: the built-in editor goes by the config."""
    traps.check_misleading_paths(load_double().BaseEditor, "FiNE", folder, tmp_path, monkeypatch)
    model, tok = tiny_model("llama")
    tok.save_pretrained(tmp_path / "gpt-files")
    builtin = BaseEditor.from_hparams(settings("FiNE", folder, model_name=str(tmp_path / "gpt-files")))
    assert builtin.model.config.model_type == "llama"


def test_methods_of_the_hosts_own_are_left_alone(folder):
    """The checks are for ours: ROME of the double is called without a look at its requests, and fails as it
    always does."""
    from helpers.edit_cases import PROMPTS, TARGETS

    hparams = settings("FiNE", folder, model_name=str(saved("llama", folder)), device="cpu")
    hparams.alg_name = "ROME"
    editor = load_double().BaseEditor.from_hparams(hparams)
    with pytest.raises(NotImplementedError, match="the double has no ROME"):
        editor.edit(PROMPTS[:1], TARGETS[:1])
