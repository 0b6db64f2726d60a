"""The tier against the real EasyEdit: it runs when EASYEDIT_HOME names a clone or ``import easyeditor`` finds
one."""

import copy
import logging

import pytest

from easyedit_neuron.host.loader import find_easyeditor


def pytest_collection_modifyitems(config, items):
    if find_easyeditor() is None:
        reason = "EasyEdit is not here: set EASYEDIT_HOME to a clone of github.com/zjunlp/EasyEdit"
        for item in items:
            if "tests/easyedit/" in item.path.as_posix():
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def easyeditor(tmp_path_factory):
    """EasyEdit, imported by our loader, with the dummy method known to it."""
    from easyedit_neuron.host import import_easyeditor
    from helpers.dummy_method import register_dummy

    register_dummy()
    return import_easyeditor()


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    """EasyEdit's editors write ./logs, and every new one adds two handlers to one logger."""
    monkeypatch.chdir(tmp_path)
    yield
    logger = logging.getLogger("easyeditor.editors.editor")
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory):
    """A tiny llama on disk; the name is what EasyEdit goes by."""
    from helpers.edit_cases import taught

    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    model, tok = taught("llama")
    model.save_pretrained(folder)
    tok.save_pretrained(folder)
    return folder


@pytest.fixture
def editors(easyeditor):
    """``make(hparams) -> (EasyEdit's editor, the built-in one)``, each with a model of its own."""
    from easyedit_neuron.host import resolve_base_editor

    def make(hparams):
        easyedit_editor, builtin_editor = (
            resolve_base_editor(host).from_hparams(copy.deepcopy(hparams)) for host in ("easyedit", "builtin")
        )
        assert type(easyedit_editor) is easyeditor.BaseEditor and type(builtin_editor) is not type(
            easyedit_editor
        )
        return easyedit_editor, builtin_editor

    return make
