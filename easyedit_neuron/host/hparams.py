"""Hyperparameters of a method by its name, of the class that the editor in use wants."""

import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import registry, resources
from ..errors import HostError, HparamsError, NeuronEditError
from ..hyperparameters.base import find_hparams
from .resolve import HOST_VARIABLE, resolve_base_editor


def load_hparams(method: str, file: str | Path, host: str | None = None) -> Any:
    """Hyperparameters for ``BaseEditor.from_hparams`` of the same host.

    EasyEdit's scripts choose the class by hand, method by method. Here NMKE, PNKE, FiNE and KNE have ours
    under either host; EasyEdit's own methods (FT, ROME, GRACE, ...) have EasyEdit's where its editor is in
    use, and the built-in editor's otherwise.

    Args:
        method: name of a method; ours in any case, EasyEdit's as in its ``ALG_DICT``.
        file: a path with or without ``.yaml``, or a shipped name such as ``"NMKE/tiny-llama"`` (EasyEdit's
            own methods have shipped files of their own for tiny-llama).
        host: as in :func:`.resolve.resolve_base_editor`.

    Raises:
        NeuronEditError: the host in use has no such method.
        HparamsError: no such file, or it is not one of that class; the message names the file.
    """
    function = easyedits_own(method, host)
    if function is None:
        return registry.get_method(method).load_hparams().from_hparams(file)
    try:
        return read_easyedits(function, _shipped_for_easyedit(method, file) or find_hparams(file))
    except HparamsError as problem:
        if not _registered(method):
            raise
        raise HparamsError(
            f"{problem}; give a file of EasyEdit's, or set {HOST_VARIABLE}=builtin for ours"
        ) from None


def easyedits_own(method: str, host: str | None = None) -> Callable | None:
    """EasyEdit's function of a method that it brings itself; ``None`` for ours, and where the built-in editor
    is in use.

    Raises:
        NeuronEditError: EasyEdit is the host and knows no such method.
    """
    if _registered(method, plugin=True) or not resolve_base_editor(host).__module__.startswith("easyeditor."):
        return None
    algorithms = importlib.import_module("easyeditor.util.alg_dict").ALG_DICT
    if method not in algorithms:
        raise NeuronEditError(f"unknown method {method!r}: EasyEdit has {', '.join(sorted(algorithms))}")
    return algorithms[method]


def read_easyedits(function: Callable, file: Path) -> Any:
    """A file as the class of hyperparameters that goes with one of EasyEdit's functions.

    Raises:
        HostError: the function does not tell its class.
        HparamsError: the class cannot read the file.
    """
    cls = _class_of(function)
    try:
        hparams = cls.from_hparams(str(file))
    except Exception as problem:  # EasyEdit's classes check by assert, KeyError and TypeError
        what = f"{type(problem).__name__}: {problem}"
        raise HparamsError(f"{file}: not hyperparameters of EasyEdit's {cls.__name__}: {what}") from None
    if isinstance(hparams.model_name, str):
        hparams.model_name = resources.model_path(hparams.model_name)
    return hparams


def _shipped_for_easyedit(method: str, file: str | Path) -> Path | None:
    """The shipped file of EasyEdit's method that ``METHOD/model`` names, unless a file of that name is
    here."""
    name = Path(str(file).removesuffix(".yaml"))
    path = resources.easyedit_hparams(method, name.name)
    return (
        path
        if name.parts[:-1] == (method,)
        and path.is_file()
        and not name.with_name(f"{name.name}.yaml").is_file()
        else None
    )


def _class_of(function: Callable) -> type:
    annotated = inspect.signature(function).parameters["hparams"].annotation
    if hasattr(annotated, "from_hparams"):
        return annotated
    module = sys.modules[function.__module__]
    named = [
        value
        for name, value in vars(module).items()
        if hasattr(value, "from_hparams") and name != "HyperParams"
    ]
    if len(named) != 1:
        raise HostError(
            f"EasyEdit's {function.__name__} does not tell its class of hyperparameters; make them with that class"
        )
    return named[0]


def _registered(method: str, plugin: bool | None = None) -> bool:
    return str(method).lower() in {name.lower() for spec in registry.methods(plugin) for name in spec.names}
