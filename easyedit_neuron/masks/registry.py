"""Masks by name: a function, and the kind of scores that it is made from."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import MaskError
from ..utils.suggest import did_you_mean
from .contract import MaskFunction
from .scores import SCORES


@dataclass(frozen=True)
class MaskSpec:
    """One registered mask.

    Attributes:
        name: value of the hyperparameter ``mask``.
        function: a mask function, see ``masks.contract``.
        scores: kind of scores, a key of ``masks.scores.SCORES``.
    """

    name: str
    function: MaskFunction
    scores: str = "lps"


_MASKS: dict[str, MaskSpec] = {}


def register_mask(name: str, function: MaskFunction | None = None, scores: str = "lps"):
    """Make a mask function (see ``masks.contract``) known by ``name``; without ``function``, a decorator.

    From then on it can be named in the hyperparameters of every method with editing paths. Registering the
    same function with the same scores under the same name again does nothing.

    Args:
        name: value of the hyperparameter ``mask``.
        function: the mask function.
        scores: what it is given, ``lps``, ``psa``, ``mpc``, ``activation``, ``contribution``, ``ig``,
            ``none`` (one row of zeros) or ``pnke`` (a list of ``CausalScores`` in place of a tensor). The
            hyperparameter ``mask_options`` holds the options of both, and ``attribution`` in it another kind.

    Raises:
        MaskError: the name belongs to another mask, or is not a word; an unknown kind of scores.

    Example:
        >>> @register_mask("strongest", scores="mpc")
        ... @mask_function
        ... def strongest(scores, *, layer=None, count=100):
        ...     best = scores.max(dim=0).values.topk(count).indices
        ...     return NeuronMask(torch.zeros(scores.shape[1], dtype=torch.bool).scatter(0, best, True))
    """
    if function is None:
        return lambda decorated: register_mask(name, decorated, scores)
    if not isinstance(name, str) or not name.strip() or not callable(function):
        raise MaskError(f"register_mask: expected a name and a function, got {name!r} and {function!r}")
    if scores not in SCORES:
        raise MaskError(f"register_mask: scores {scores!r} are unknown: {did_you_mean(scores, SCORES)}")
    spec, present = MaskSpec(name, function, scores), _MASKS.get(name)
    if present is not None and present != spec:
        owner = f"{present.function.__module__}.{present.function.__qualname__}"
        raise MaskError(
            f"mask {name!r} is already registered by {owner} with scores {present.scores!r}; choose another name"
        )
    _MASKS[name] = spec
    return function


def mask_spec(name: str) -> MaskSpec:
    """The mask called ``name``.

    Raises:
        MaskError: no such mask; the message holds the nearest name.
    """
    if name not in _MASKS:
        raise MaskError(f"mask {name!r} is unknown: {did_you_mean(name, _MASKS)}")
    return _MASKS[name]


def get_mask(name: str) -> MaskFunction:
    """The mask function called ``name``; errors as ``mask_spec``."""
    return mask_spec(name).function


def mask_names() -> list[str]:
    """Registered names, sorted."""
    return sorted(_MASKS)
