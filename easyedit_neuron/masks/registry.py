"""Masks and scores by name; built-in ones are imported when they are first used."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..errors import MaskError
from ..hyperparameters.options import Options
from ..utils.suggest import did_you_mean
from .contract import MaskFunction

ScoresFunction = Callable[..., dict[int, Any]]


@dataclass(frozen=True)
class MaskSpec:
    """One registered mask.

    Attributes:
        name: value of the hyperparameter ``mask``.
        function: a mask function (see ``masks.contract``), or ``"module:name"``.
        scores: name of registered scores.
        options: its ``Options`` dataclass, or ``"module:name"``; None: the function takes the scores alone.
    """

    name: str
    function: MaskFunction | str
    scores: str = "lps"
    options: type[Options] | str | None = None


@dataclass(frozen=True)
class ScoresSpec:
    """One kind of scores.

    Attributes:
        name: value of ``attribution`` in ``mask_options``.
        function: ``function(context, options) -> {layer: [B, d_ff]}``, or ``"module:name"``.
        options: its ``Options`` dataclass, or ``"module:name"``; None: the function takes the context alone.
        own_mask: the scores are not plain tensors, so only masks registered with them can use them.
    """

    name: str
    function: ScoresFunction | str
    options: type[Options] | str | None = None
    own_mask: bool = False


_MASKS: dict[str, MaskSpec] = {}
_SCORES: dict[str, ScoresSpec] = {}


def register_mask(
    name: str, function: MaskFunction | None = None, scores: str = "lps", options: type[Options] | None = None
):
    """Register a mask function (see ``masks.contract``) as ``name``; without ``function``, a decorator.

    The hyperparameter ``mask`` of every locate-then-edit method can then name it. Its options and those of
    its scores are set in ``mask_options``.

    Args:
        name: value of the hyperparameter ``mask``.
        function: ``function(scores)``, or with options ``function(scores, options, layer)``.
        scores: the scores that it is computed from: ``lps``, ``psa``, ``mpc``, ``activation``,
            ``contribution``, ``ig``, ``none`` (one row of zeros), or a name from ``register_scores``. The
            entry ``attribution`` of ``mask_options`` replaces them.
        options: dataclass of its options, a subclass of ``Options``.

    Raises:
        MaskError: the name belongs to another mask or is not a word; unknown scores.

    Example:
        >>> @register_mask("strongest", scores="mpc")
        ... def strongest(scores):
        ...     best = scores.max(dim=0).values
        ...     return best >= best.quantile(0.9)
    """
    if function is None:
        return lambda decorated: register_mask(name, decorated, scores, options)
    _check("register_mask", name, function)
    if scores not in _SCORES:
        raise MaskError(f"register_mask: scores {scores!r} are unknown: {did_you_mean(scores, _SCORES)}")
    _add(_MASKS, "mask", MaskSpec(name, function, scores, options))
    return function


def register_scores(name: str, function: ScoresFunction, options: type[Options] | None = None) -> None:
    """Register scores as ``name``, for ``register_mask`` and for ``attribution`` in ``mask_options``.

    Args:
        name: a word.
        function: ``function(context)``, or with options ``function(context, options)``, from a
            ``ScoringContext`` to ``{layer: [B, d_ff]}``.
        options: dataclass of its options, a subclass of ``Options``.

    Raises:
        MaskError: the name belongs to other scores or is not a word.
    """
    _check("register_scores", name, function)
    _add(_SCORES, "scores", ScoresSpec(name, function, options))


def mask_spec(name: str) -> MaskSpec:
    """The mask called ``name``; ``MaskError`` with the nearest name where there is none."""
    if name not in _MASKS:
        raise MaskError(f"mask {name!r} is unknown: {did_you_mean(name, _MASKS)}")
    return _MASKS[name]


def scores_spec(name: str) -> ScoresSpec:
    """The scores called ``name``; ``MaskError`` with the nearest name where there are none."""
    if name not in _SCORES:
        raise MaskError(f"scores {name!r} are unknown: {did_you_mean(name, _SCORES)}")
    return _SCORES[name]


def get_mask(name: str) -> MaskFunction:
    """The mask function called ``name``; errors as ``mask_spec``."""
    return load(mask_spec(name).function)


def mask_names() -> list[str]:
    """Registered names, sorted."""
    return sorted(_MASKS)


def scores_names() -> list[str]:
    """Registered names of scores, sorted."""
    return sorted(_SCORES)


def load(target: Any) -> Any:
    """Import the object ``"module:name"`` of the package; return anything but a string unchanged."""
    if not isinstance(target, str):
        return target
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(f"easyedit_neuron.{module}"), name)


def _check(caller: str, name: Any, function: Any) -> None:
    if not isinstance(name, str) or not name.strip() or not callable(function):
        raise MaskError(f"{caller}: expected a name and a function, got {name!r} and {function!r}")


def _add(registry: dict[str, Any], kind: str, spec: MaskSpec | ScoresSpec) -> None:
    present = registry.get(spec.name)
    if present is not None and present != spec:
        raise MaskError(f"{kind} {spec.name!r} is already registered with {present}; choose another name")
    registry[spec.name] = spec


for _name, _options in {
    "lps": "ShiftScoreOptions",
    "psa": "ShiftScoreOptions",
    "mpc": "PromptOptions",
    "activation": "PromptOptions",
    "contribution": "ContributionOptions",
    "ig": "GradientOptions",
}.items():
    _SCORES[_name] = ScoresSpec(_name, f"masks.scores:{_name}", f"hyperparameters.score_options:{_options}")
_SCORES["none"] = ScoresSpec("none", "masks.scores:none", Options)
_PNKE_OPTIONS = "models.pnke.pnke_options:PNKEScoringOptions"
_SCORES["pnke"] = ScoresSpec("pnke", "models.pnke.pnke_scores:pnke_scores", _PNKE_OPTIONS, own_mask=True)

for _spec in (
    MaskSpec("none", "masks.generic:no_mask", "none"),
    MaskSpec("random", "masks.generic:random_mask", "none", "masks.generic:RandomOptions"),
    MaskSpec("fixed", "masks.generic:fixed_mask", "none", "masks.generic:FixedOptions"),
    MaskSpec("contribution", "masks.generic:top_k_mask", "contribution", "masks.generic:TopOptions"),
    MaskSpec("ig", "masks.generic:top_share_mask", "ig", "masks.generic:TopOptions"),
    MaskSpec("activation", "masks.generic:top_share_mask", "activation", "masks.generic:TopOptions"),
    MaskSpec("nmke", "models.nmke.nmke_mask:nmke_mask", "lps", "models.nmke.nmke_hparams:NMKEOptions"),
    MaskSpec("pnke", "models.pnke.pnke_mask:pnke_mask", "pnke", _PNKE_OPTIONS),
):
    _MASKS[_spec.name] = _spec
