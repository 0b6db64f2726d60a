"""Hyperparameters of a method by its name, of the class that the editor in use needs."""

import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import registry, resources
from ..errors import HostError, HparamsError, NeuronEditError
from ..hyperparameters.base import find_hparams
from .loader import find_easyeditor
from .resolve import HOST_VARIABLE, resolve_base_editor

_LLAMA2 = ("llama-7b", "llama-7B")
_LLAMA3 = ("llama3-8b", *_LLAMA2)
_EASYEDIT_NAMES = {
    "gpt-j-6B": ("gpt-j-6B", "gpt-j-6b"),
    "gpt2-xl": ("gpt2-xl",),
    "llama2-7b": _LLAMA2,
    "llama2-7b-chat": _LLAMA2,
    "llama3-8b": _LLAMA3,
    "llama3-8b-instruct": _LLAMA3,
    "llama3.1-8b-instruct": ("llama3.1-8b", *_LLAMA3),
    "mistral-7b": ("mistral-7b",),
    "qwen2.5-7b": ("qwen2.5-7b",),
    "qwen2.5-7b-instruct": ("qwen2.5-7b",),
}
"""Our name of a model -> EasyEdit's files that fit it, the best first: Llama-2-7B has the modules and the
number of layers of the Llamas of 8B."""


def load_hparams(method: str, file: str | Path, host: str | None = None) -> Any:
    """Hyperparameters for ``BaseEditor.from_hparams`` of the same host.

    NMKE, PNKE, FiNE, KNE and Lasting have ours under either host; EasyEdit's own methods (FT, ROME, GRACE,
    ...) have EasyEdit's where its editor is in use, and the built-in editor's otherwise.

    Args:
        method: ours in any case, EasyEdit's as in its ``ALG_DICT``.
        file: a path with or without ``.yaml``, or a shipped name such as ``"NMKE/tiny-llama"``.
        host: as in ``resolve_base_editor``.

    Raises:
        NeuronEditError: the host has no such method, or no such file can be read as its class.
    """
    function = easyedit_function(method, host)
    if function is None:
        return registry.get_method(method).load_hparams().from_hparams(file)
    try:
        return read_easyedit_hparams(function, _shipped_for_easyedit(method, file) or find_hparams(file))
    except HparamsError as problem:
        if not _is_registered(method):
            raise
        remedy = f"give a file of EasyEdit's, or set {HOST_VARIABLE}=builtin for ours"
        raise HparamsError(f"{problem}; {remedy}") from None


def easyedit_function(method: str, host: str | None = None) -> Callable | None:
    """EasyEdit's function for a method of its own; ``None`` for ours and under the built-in editor."""
    if _is_registered(method, plugin=True):
        return None
    if not resolve_base_editor(host).__module__.startswith("easyeditor."):
        return None
    algorithms = importlib.import_module("easyeditor.util.alg_dict").ALG_DICT
    if method not in algorithms:
        raise NeuronEditError(f"unknown method {method!r}: EasyEdit has {', '.join(sorted(algorithms))}")
    return algorithms[method]


def easyedit_hparams_file(alg_name: str, model: str) -> tuple[Path, dict[str, str]]:
    """The file of hyperparameters for one of EasyEdit's methods and a model, and what is changed in it.

    The shipped file, else that of the same architecture in EasyEdit's folder, with our model's checkpoint for
    its ``model_name``.

    Raises:
        HparamsError: there is neither.
    """
    shipped = resources.easyedit_hparams(alg_name, model)
    if shipped.is_file():
        return shipped, {}
    package = find_easyeditor()
    folder = package.parent / "hparams" / alg_name if package else Path()
    for name in _EASYEDIT_NAMES.get(model, ()):
        if package and (folder / f"{name}.yaml").is_file():
            return folder / f"{name}.yaml", {"model_name": resources.CHECKPOINTS[model]}
    remedy = "name one, as in model.hparams=EasyEdit/hparams/GRACE/gpt2-xl.yaml"
    raise HparamsError(f"neither we nor EasyEdit have a file of its {alg_name} for {model!r}: {remedy}")


def read_easyedit_hparams(function: Callable, file: Path) -> Any:
    """Read a file as the class of hyperparameters that goes with one of EasyEdit's functions."""
    cls = _hparams_class(function)
    try:
        hparams = cls.from_hparams(str(file))
    except Exception as problem:  # EasyEdit's classes check by assert, KeyError and TypeError
        reason = f"{type(problem).__name__}: {problem}"
        raise HparamsError(f"{file}: not hyperparameters of EasyEdit's {cls.__name__}: {reason}") from None
    if getattr(hparams, "stats_dir", "") is None:
        hparams.stats_dir = str(resources.statistics_dir())
    if isinstance(hparams.model_name, str):
        hparams.model_name = resources.model_path(hparams.model_name)
        resources.require_model(hparams.model_name)
    return hparams


def _shipped_for_easyedit(method: str, file: str | Path) -> Path | None:
    """The shipped file for EasyEdit's method named ``METHOD/model``, unless the user has a file there."""
    name = Path(str(file).removesuffix(".yaml"))
    shipped = resources.easyedit_hparams(method, name.name)
    users_own = name.with_name(f"{name.name}.yaml").is_file()
    return shipped if name.parts[:-1] == (method,) and shipped.is_file() and not users_own else None


def _hparams_class(function: Callable) -> type:
    annotated = inspect.signature(function).parameters["hparams"].annotation
    if hasattr(annotated, "from_hparams"):
        return annotated
    names = vars(sys.modules[function.__module__])
    classes = [cls for name, cls in names.items() if hasattr(cls, "from_hparams") and name != "HyperParams"]
    if len(classes) != 1:
        raise HostError(f"EasyEdit's {function.__name__} does not name its class of hyperparameters")
    return classes[0]


def _is_registered(method: str, plugin: bool | None = None) -> bool:
    return str(method).lower() in {name.lower() for spec in registry.methods(plugin) for name in spec.names}
