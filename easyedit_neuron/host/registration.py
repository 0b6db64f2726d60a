"""Make our methods known to EasyEdit, whichever of the two is imported first and without importing it.

EasyEdit looks a method up in the plain dictionary ``easyeditor.util.alg_dict.ALG_DICT`` and asks
``BatchEditor.is_batchable_method``, a function with hard-coded names, whether it takes batches; its editor's
calls get the checks of ``guard``. All of it is changed in memory only.
"""

import functools
import importlib.abc
import importlib.util
import logging
import sys

from .. import registry

LOG = logging.getLogger(__name__)

ALG_DICT_MODULE = "easyeditor.util.alg_dict"
BATCH_MODULE = "easyeditor.editors.batch_editor"
EDITOR_MODULE = "easyeditor.editors.editor"
_NEEDED = {ALG_DICT_MODULE: "ALG_DICT", BATCH_MODULE: "BatchEditor", EDITOR_MODULE: "BaseEditor"}


def register() -> bool:
    """Give EasyEdit every method with ``plugin=True``: now, or (False) when EasyEdit is imported.

    Idempotent; call it again after ``register_method`` to add a method later.
    """
    if _loaded():
        _remove_hook()
        _register_all()
        return True
    if not any(isinstance(finder, _Hook) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Hook())
    return False


def available() -> list["registry.MethodSpec"]:
    """The methods for EasyEdit whose modules are installed."""
    return [spec for spec in registry.methods(plugin=True) if _exists(spec.apply.partition(":")[0])]


def _exists(module: str) -> bool:
    try:
        return module in sys.modules or importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _loaded() -> bool:
    return all(hasattr(sys.modules.get(module), name) for module, name in _NEEDED.items())


def _register_all() -> None:
    algorithms = sys.modules[ALG_DICT_MODULE].ALG_DICT
    package = sys.modules.get("easyeditor")
    for spec in available():
        function, hparams = spec.load_apply(), spec.load_hparams()
        for name in spec.names:
            if algorithms.get(name, function) is not function:
                text = "EasyEdit already has a method %r (%s); the one of easyedit_neuron takes its place"
                LOG.warning(text, name, algorithms[name])
            algorithms[name] = function
        if package is not None and not hasattr(package, hparams.__name__):
            setattr(package, hparams.__name__, hparams)
    _extend_batchable(sys.modules[BATCH_MODULE].BatchEditor)
    from .guard import guard  # here and not above: it imports torch

    guard(sys.modules[EDITOR_MODULE].BaseEditor)


def _extend_batchable(batch_editor) -> None:
    original = batch_editor.is_batchable_method
    if getattr(original, "knows_easyedit_neuron", False):
        return

    @functools.wraps(original)
    def is_batchable_method(alg_name: str) -> bool:
        ours = any(spec.batchable and alg_name in spec.names for spec in registry.methods(plugin=True))
        return ours or original(alg_name)

    is_batchable_method.knows_easyedit_neuron = True
    batch_editor.is_batchable_method = staticmethod(is_batchable_method)


class _Hook(importlib.abc.MetaPathFinder):
    """Registers once the three modules of EasyEdit have been loaded, and leaves ``sys.meta_path``."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname not in _NEEDED:
            return None
        for finder in list(sys.meta_path):
            if not isinstance(finder, _Hook) and hasattr(finder, "find_spec"):
                spec = finder.find_spec(fullname, path, target)
                if spec is not None:
                    if spec.loader is not None:
                        spec.loader.exec_module = functools.partial(_load_and_register, spec.loader)
                    return spec
        return None


def _load_and_register(loader, module) -> None:
    del loader.exec_module  # the loader's own again: the module keeps no trace of the hook
    loader.exec_module(module)
    if _loaded():
        try:
            register()
        except Exception:  # EasyEdit must stay usable for its own methods
            LOG.exception(
                "the methods are not registered with EasyEdit; easyedit_neuron.register() tries again"
            )
            _remove_hook()


def _remove_hook() -> None:
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _Hook)]
