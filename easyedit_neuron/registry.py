"""The methods that the package knows, by name, with targets that are imported only when they are used.

A new method is one folder and one :func:`register_method` call. Targets are given as
``"package.module:attribute"`` so that ``import easyedit_neuron`` neither loads torch models nor transformers;
a name or alias that is already taken is an error, never a silent replacement.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .errors import NeuronEditError
from .utils.suggest import did_you_mean


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
    """

    name: str
    apply: str
    hparams: str
    aliases: tuple[str, ...] = ()
    batchable: bool = False
    plugin: bool = False

    def __post_init__(self) -> None:
        for target in (self.apply, self.hparams):
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


_METHODS: dict[str, MethodSpec] = {}


def register_method(spec: MethodSpec) -> MethodSpec:
    """Make a method known. The same spec twice is fine; another one under a taken name is a
    ``NeuronEditError``."""
    known = {name.lower(): other for other in _METHODS.values() for name in other.names}
    for name in spec.names:
        taken = known.get(name.lower())
        if taken is not None and taken != spec:
            raise NeuronEditError(
                f"method name {name!r} is already registered (by {taken.name!r}): choose another name"
            )
    _METHODS[spec.name] = spec
    return spec


def get_method(name: str) -> MethodSpec:
    """The method of that name or alias, in any case; ``NeuronEditError`` with the nearest name otherwise."""
    wanted = str(name).lower()
    for spec in _METHODS.values():
        if wanted in (known.lower() for known in spec.names):
            return spec
    raise NeuronEditError(f"unknown method {name!r}: {did_you_mean(name, _METHODS)}")


def methods(plugin: bool | None = None) -> list[MethodSpec]:
    """All registered methods in the order of registration, or only (not) those that are given to EasyEdit."""
    return [spec for spec in _METHODS.values() if plugin is None or spec.plugin == plugin]


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
_builtin("AlphaEdit", "alphaedit", "AlphaEditHyperParams", batchable=True)
_builtin("MEMIT", "memit", "MEMITHyperParams", batchable=True)
_builtin("ROME", "rome", "ROMEHyperParams", aliases=("R-ROME",))
_builtin("FT", "ft", "FTHyperParams", batchable=True)
