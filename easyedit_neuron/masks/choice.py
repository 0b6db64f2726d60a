"""From the name of a mask and its options in the hyperparameters to the masks of an edit."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import HparamsError, MaskError
from ..hyperparameters.typecheck import TypeMismatch, convert
from ..utils.suggest import did_you_mean
from .context import Edit
from .contract import MaskFunction, NeuronMask
from .registry import mask_names, mask_spec
from .scores import OF_ONE_MASK, SCORES

KIND = "attribution"
"""The option that asks for another kind of scores than the mask was registered with."""


@dataclass(frozen=True)
class MaskChoice:
    """A mask with everything that is set about it, checked.

    Attributes:
        name, function: the mask.
        scores: kind of scores.
        mask_options, score_options: keyword arguments of the function and of the kind of scores.
    """

    name: str
    function: MaskFunction
    scores: str
    mask_options: dict[str, Any]
    score_options: dict[str, Any]

    @classmethod
    def of(
        cls, name: str, options: Mapping[str, Any] | None = None, usual: Mapping[str, Any] | None = None
    ) -> MaskChoice:
        """Look up and check; an option that both the mask and its scores have goes to both.

        Args:
            name: a registered mask.
            options: what the user set (``mask_options``): every name must be an option of the mask or its
                scores, ``attribution`` (the kind of scores) apart, and every value of its type.
            usual: values used instead of the functions' own defaults, wherever an option of that name exists.

        Raises:
            HparamsError: an unknown mask, kind of scores or option (with the nearest name), a value of a
                wrong type, a required option that is missing.
        """
        usual, given = dict(usual or {}), dict(options or {})
        try:
            spec = mask_spec(name)
        except MaskError:
            raise HparamsError(
                f"field 'mask': {name!r} is unknown: {did_you_mean(name, mask_names())}"
            ) from None
        kind = given.pop(KIND, usual.pop(KIND, spec.scores))
        if not isinstance(kind, str) or kind not in SCORES:
            raise HparamsError(
                f"field 'mask_options': {KIND} {kind!r} is unknown: {did_you_mean(kind, SCORES)}"
            )
        if kind != spec.scores and OF_ONE_MASK & {kind, spec.scores}:
            raise HparamsError(
                f"field 'mask_options': mask {name!r} is made from scores {spec.scores!r}, not from {kind!r}"
            )
        of_mask, of_scores = _Options(spec.function), _Options(SCORES[kind])
        known = [*of_mask.types, *of_scores.types]
        for option in given:
            if option not in known and not of_mask.any_name:
                raise HparamsError(
                    f"field 'mask_options': mask {name!r} on scores {kind!r} has no option {option!r}: "
                    f"{did_you_mean(option, [*known, KIND])}"
                )
        for option in of_mask.required:
            if option not in given and option not in usual:
                raise HparamsError(f"field 'mask_options': mask {name!r} needs the option {option!r}")
        own = {option: value for option, value in given.items() if option not in known}
        return cls(
            name, spec.function, kind, {**of_mask.take(usual, given), **own}, of_scores.take(usual, given)
        )

    @property
    def options(self) -> set[str]:
        """Names of all options that the mask and its scores have."""
        return {*_Options(self.function).types, *_Options(SCORES[self.scores]).types}

    def masks(self, edit: Edit) -> dict[int, NeuronMask]:
        """``{layer: NeuronMask}`` for an edit.

        Raises:
            NeuronEditError: options out of range; scores that cannot be computed; a function that returns no
                mask of the layer.
        """
        scores = SCORES[self.scores](edit, **self.score_options)
        return {layer: self._mask(scores[layer], layer, edit.view.d_ff) for layer in edit.layers}

    def _mask(self, scores, layer: int, d_ff: int) -> NeuronMask:
        number = {"layer": layer} if _Options(self.function).wants_layer else {}
        found = self.function(scores, **number, **self.mask_options)
        mask = NeuronMask(found) if isinstance(found, torch.Tensor) else found
        if not isinstance(mask, NeuronMask) or mask.mask.shape != (d_ff,):
            got = list(mask.mask.shape) if isinstance(mask, NeuronMask) else type(found).__name__
            raise MaskError(
                f"mask {self.name!r}: expected a boolean tensor [{d_ff}] or a NeuronMask, got {got}"
            )
        if not mask.binary and not bool(((mask.weight >= 0) & (mask.weight <= 1)).all()):
            raise MaskError(f"mask {self.name!r}: a mask is boolean or holds weights between 0 and 1")
        return mask


class _Options:
    """The keyword options of a mask function or a kind of scores, read off its signature."""

    def __init__(self, function: Callable):
        parameters = list(inspect.signature(function).parameters.values())[1:]
        hints = _hints(function)
        keyword = [p for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
        self.any_name = any(p.kind is p.VAR_KEYWORD for p in parameters)
        self.wants_layer = self.any_name or any(p.name == "layer" for p in keyword)
        self.types = {p.name: hints.get(p.name, Any) for p in keyword if p.name != "layer"}
        self.required = [p.name for p in keyword if p.name != "layer" and p.default is p.empty]

    def take(self, usual: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
        """The values that are options of this function, converted to their types."""
        taken = {}
        for name, value in {**usual, **given}.items():
            if name not in self.types:
                continue
            try:
                taken[name] = convert(value, self.types[name])
            except TypeMismatch as problem:
                raise HparamsError(f"field 'mask_options': option {name!r} {problem}") from None
        return taken


def _hints(function: Callable) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except (
        NameError,
        TypeError,
    ):  # a callable object, or annotations that name something out of reach: no types to check
        return {}


def neuron_masks(view, tok, requests, hparams, contexts, readings=None, report=None) -> dict[int, NeuronMask]:
    """The masks of every edited layer, from the unedited model.

    Args:
        view, tok: model and tokenizer.
        requests: the batch of ``EditRequest``.
        hparams: ``PathHyperParams``; ``mask`` is not ``none``.
        contexts: groups of context templates.
        readings, report: see ``Edit``.

    Raises:
        NeuronEditError: as ``MaskChoice``; a soft mask where the problem is restricted to the masked rows.
    """
    edit = Edit(
        view, tok, requests, contexts, list(hparams.layers), readings, {} if report is None else report
    )
    masks = hparams.mask_choice().masks(edit)
    soft = [layer for layer, mask in masks.items() if not mask.binary]
    if soft and hparams.mask_stage == "solve":
        raise MaskError(f"layer {soft[0]}: a soft mask cannot restrict the problem; use mask_stage 'post'")
    return masks


def mask_factory(hparams):
    """What ``paths.apply.apply_path`` takes as ``mask``: ``neuron_masks``, or None for ``mask: none``."""
    return None if hparams.mask == "none" else neuron_masks
