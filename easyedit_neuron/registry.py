"""The methods that the package knows, by name, with targets that are imported only when they are used.

A new method is one folder and one ``register_method`` call; a method of another package is an entry point of
the group ``easyedit_neuron.methods`` (docs/guides/add-a-method.md). Targets are given as
``"package.module:attribute"``, so that ``import easyedit_neuron`` loads neither torch nor transformers. A
name or alias that is already taken is an error, never a silent replacement.
"""

import importlib
import importlib.metadata
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .errors import NeuronEditError
from .utils.suggest import did_you_mean

LOG = logging.getLogger(__name__)
ENTRY_POINTS = "easyedit_neuron.methods"
"""Group of the entry points of other packages; each names a ``MethodSpec``."""


@dataclass(frozen=True)
class MethodSpec:
    """One editing method.

    Attributes:
        name: the canonical ``alg_name``.
        apply: target of ``apply_<method>_to_model``.
        hparams: target of the hyperparameter class.
        aliases: other spellings of the name.
        batchable: one call may take several requests at once (EasyEdit's ``batch_edit``).
        plugin: given to EasyEdit at registration; the others live in the built-in host only, where EasyEdit
            has its own.
        runner: target of the ``lifelong.method.Method`` that keeps beside the model what a method does not
            write into weights; its apply function refuses. None for methods that edit weights.
    """

    name: str
    apply: str
    hparams: str
    aliases: tuple[str, ...] = ()
    batchable: bool = False
    plugin: bool = False
    runner: str | None = None

    def __post_init__(self) -> None:
        for target in (self.apply, self.hparams, *([self.runner] if self.runner else [])):
            module, _, attribute = target.partition(":")
            if not module or not attribute:
                raise NeuronEditError(
                    f"method {self.name!r}: target {target!r} must read 'package.module:attribute'"
                )

    @property
    def names(self) -> tuple[str, ...]:
        """The canonical name, then the aliases."""
        return (self.name, *self.aliases)

    def load_apply(self) -> Callable[..., Any]:
        """Import and return the method's apply function."""
        return _load(self.apply)

    def load_hparams(self) -> type:
        """Import and return the method's hyperparameter class."""
        return _load(self.hparams)

    def load_runner(self) -> type | None:
        """Import and return the class that ``runner`` names; None without one."""
        return _load(self.runner) if self.runner else None


_METHODS: dict[str, MethodSpec] = {}
_entry_points_read = False


def register_method(spec: MethodSpec) -> MethodSpec:
    """Make a method known.

    Raises:
        NeuronEditError: another method has the name or an alias. The same spec twice is fine.
    """
    taken = {name.lower(): other for other in _METHODS.values() for name in other.names}
    for name in spec.names:
        other = taken.get(name.lower(), spec)
        if other != spec:
            raise NeuronEditError(
                f"method name {name!r} is already registered (by {other.name!r}): choose another name"
            )
    _METHODS[spec.name] = spec
    return spec


def get_method(name: str) -> MethodSpec:
    """The method of that name or alias, in any case; ``NeuronEditError`` with the nearest name otherwise."""
    for spec in methods():
        if str(name).lower() in (accepted.lower() for accepted in spec.names):
            return spec
    raise NeuronEditError(f"unknown method {name!r}: {did_you_mean(name, _METHODS)}")


def methods(plugin: bool | None = None) -> list[MethodSpec]:
    """All known methods in the order of registration, or only (not) those that are given to EasyEdit."""
    _read_entry_points()
    return [spec for spec in _METHODS.values() if plugin is None or spec.plugin == plugin]


def _read_entry_points() -> None:
    """Register the methods of other packages, once per process; one that is broken is left out with a
    warning."""
    global _entry_points_read
    if _entry_points_read:
        return
    _entry_points_read = True
    for entry_point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        try:
            spec = entry_point.load()
            if not isinstance(spec, MethodSpec):
                raise NeuronEditError(f"expected a MethodSpec, got {type(spec).__name__}")
            register_method(spec)
        except Exception as problem:
            LOG.warning("the method %r of another package is left out: %s", entry_point.value, problem)


def _load(target: str) -> Any:
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _builtin(name: str, folder: str, hparams: str, **options: Any) -> None:
    package = f"{__package__}.models.{folder}"
    register_method(
        MethodSpec(
            name=name,
            apply=f"{package}.{folder}_main:apply_{folder}_to_model",
            hparams=f"{package}.{folder}_hparams:{hparams}",
            **options,
        )
    )


_builtin("NMKE", "nmke", "NMKEHyperParams", batchable=True, plugin=True)
_builtin("PNKE", "pnke", "PNKEHyperParams", batchable=True, plugin=True)
_builtin("FiNE", "fine", "FiNEHyperParams", aliases=("FINE",), batchable=True, plugin=True)
_builtin("KNE", "kne", "KNEHyperParams", batchable=True, plugin=True)
_builtin("Lasting", "lasting", "LastingHyperParams", batchable=True, plugin=True)
_builtin("AlphaEdit", "alphaedit", "AlphaEditHyperParams", batchable=True)
_builtin("MEMIT", "memit", "MEMITHyperParams", batchable=True)
_builtin("ROME", "rome", "ROMEHyperParams", aliases=("R-ROME",))
_builtin("FT", "ft", "FTHyperParams", batchable=True)
_BESIDE = f"{__package__}.lifelong"
_builtin("IKE", "ike", "IKEHyperParams", batchable=True, runner=f"{_BESIDE}.prompt_method:PromptMethod")
_builtin("Gate", "gate", "GateHyperParams", batchable=True, runner=f"{_BESIDE}.gate_method:GateMethod")
