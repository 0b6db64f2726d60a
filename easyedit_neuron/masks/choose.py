"""From the hyperparameters ``mask`` and ``mask_options`` to the masks of a batch."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..arch.widen import own_width
from ..errors import HparamsError, MaskError
from ..hyperparameters.options import Options, require
from ..utils.suggest import did_you_mean
from .contract import MaskFunction, NeuronMask
from .generic import read_indices
from .registry import ScoresSpec, load, mask_names, mask_spec, scores_names, scores_spec
from .scoring_context import ScoringContext

ATTRIBUTION = "attribution"
"""Entry of ``mask_options`` that names other scores than the mask was registered with."""


@dataclass(frozen=True)
class ChosenMask:
    """A mask with its checked options and scores.

    Attributes:
        name, function, options: the mask.
        scores, scores_options: the scores that it is computed from.

    Functions without options have None as their options.
    """

    name: str
    function: MaskFunction
    options: Options | None
    scores: ScoresSpec
    scores_options: Options | None


def make_masks(context: ScoringContext, hparams) -> dict[int, NeuronMask]:
    """Compute the scores of the batch, and from them the mask of every edited layer, ``{layer: NeuronMask}``.

    ``hparams.mask`` names the mask. For ``none`` the result is empty: every neuron may change.

    Raises:
        NeuronEditError: options out of range, scores that cannot be computed, a function that returns no mask
            of the layer, a soft mask with ``mask_stage: solve``.
    """
    if hparams.mask == "none":
        return {}
    chosen = chosen_mask(hparams)
    scores_function = load(chosen.scores.function)
    if chosen.scores_options is None:
        scores = scores_function(context)
    else:
        scores = scores_function(context, chosen.scores_options)
    masks, width = {}, own_width(context.view)
    for layer in context.layers:
        own = context.own(scores[layer])
        if chosen.options is None:
            mask = chosen.function(own)
        else:
            mask = chosen.function(own, chosen.options, layer)
        masks[layer] = _checked(mask, chosen.name, layer, width, hparams)
    return masks


def chosen_mask(hparams) -> ChosenMask:
    """Look up the mask and its options, and check them.

    An option of ``mask_options`` that both the mask and its scores have goes to both.

    Args:
        hparams: ``PathHyperParams``. Where ``mask`` is the method's own, its fields are the options.

    Raises:
        HparamsError: an unknown mask, scores or option (with the nearest name), a value of a wrong type or
            out of range, a required option that is missing, an option that is set in the wrong place.
    """
    mask_options = dict(hparams.mask_options or {})
    try:
        spec = mask_spec(hparams.mask)
    except MaskError:
        names = did_you_mean(hparams.mask, mask_names())
        raise HparamsError(f"field 'mask': {hparams.mask!r} is unknown: {names}") from None
    is_own = hparams.mask == hparams.OWN_MASK
    scores = _chosen_scores(spec, mask_options, getattr(hparams, ATTRIBUTION, None) if is_own else None)
    kinds = [load(cls) for cls in (spec.options, scores.options) if cls is not None]
    _check_names(hparams, mask_options, kinds, f"mask {spec.name!r} on scores {scores.name!r}", is_own)
    values = _defaults(hparams, is_own) | mask_options
    built = [
        hparams
        if is_own and isinstance(hparams, cls) and not mask_options.keys() & set(cls.field_names())
        else _build(cls, values, mask_options)
        for cls in kinds
    ]
    options = built.pop(0) if spec.options is not None else None
    return ChosenMask(spec.name, load(spec.function), options, scores, built.pop() if built else None)


def _chosen_scores(spec, mask_options: dict[str, Any], own_field: str | None) -> ScoresSpec:
    kind = mask_options.pop(ATTRIBUTION, own_field or spec.scores)
    if not isinstance(kind, str) or kind not in scores_names():
        names = did_you_mean(kind, scores_names())
        raise HparamsError(f"field 'mask_options': {ATTRIBUTION} {kind!r} is unknown: {names}")
    scores = scores_spec(kind)
    if kind != spec.scores and (scores.own_mask or scores_spec(spec.scores).own_mask):
        raise HparamsError(
            f"field 'mask_options': mask {spec.name!r} is made from scores {spec.scores!r}, not from {kind!r}"
        )
    return scores


def _check_names(
    hparams, mask_options: dict[str, Any], kinds: list[type[Options]], title: str, is_own: bool
) -> None:
    """Refuse an unknown option, one that is set in two places, and one that is not read where it is set."""
    known_options = [name for cls in kinds for name in (*cls.field_names(), *cls.ALIASES)]
    own_fields = type(hparams).own_fields()
    for name in mask_options:
        if name not in known_options:
            names = did_you_mean(name, [*known_options, ATTRIBUTION])
            raise HparamsError(f"field 'mask_options': {title} has no option {name!r}: {names}")
        field = hparams.OPTION_FIELDS.get((hparams.mask, name))
        if field is None and is_own:
            field = next((cls.ALIASES[name] for cls in kinds if name in cls.ALIASES), name)
            field = field if field in own_fields else None
        if field is not None:
            raise HparamsError(f"field 'mask_options': set {name!r} by the field '{field}'")
    if is_own:
        return
    for entry in dataclasses.fields(hparams):
        is_option = entry.name in own_fields and entry.name in known_options
        if is_option or entry.name == ATTRIBUTION and known_options:
            factory = entry.default_factory
            default = entry.default if factory is dataclasses.MISSING else factory()
            require(
                getattr(hparams, entry.name) == default,
                entry.name,
                f"is read by mask '{hparams.OWN_MASK}'; mask {hparams.mask!r} takes it in mask_options",
            )


def _defaults(hparams, is_own: bool) -> dict[str, Any]:
    """Values in place of the options' defaults: seed, cache folder, the method's fields for its own mask."""
    values = {"seed": hparams.seed, "psem_cache_dir": str(Path(hparams.stats_dir) / "psem")}
    for (mask, option), name in hparams.OPTION_FIELDS.items():
        if mask == hparams.mask:
            values[option] = getattr(hparams, name)
    if is_own:
        values |= {name: value for name, value in vars(hparams).items() if value is not None}
    if hparams.mask == "fixed" and hparams.mask_file:
        values["indices"] = read_indices(hparams.mask_file)
    return values


def _build(cls: type[Options], values: dict[str, Any], mask_options: dict[str, Any]) -> Options:
    names = {name: name for name in cls.field_names()} | cls.ALIASES
    try:
        return cls(**{names[name]: value for name, value in values.items() if name in names})
    except HparamsError as problem:
        name = str(problem).split("'")[1]
        if name not in {names.get(option) for option in mask_options}:
            raise  # a field of the method
        raise HparamsError(f"field 'mask_options': option {str(problem).removeprefix('field ')}") from None
    except TypeError:
        missing = [
            entry.name
            for entry in dataclasses.fields(cls)
            if entry.name not in values and entry.default is entry.default_factory is dataclasses.MISSING
        ]
        raise HparamsError(f"field 'mask_options': the mask needs the option {missing[0]!r}") from None


def _checked(mask: Any, name: str, layer: int, d_ff: int, hparams) -> NeuronMask:
    mask = mask if isinstance(mask, NeuronMask) else NeuronMask(mask)
    values = mask.mask
    if not isinstance(values, torch.Tensor) or values.shape != (d_ff,):
        got = list(values.shape) if isinstance(values, torch.Tensor) else type(values).__name__
        raise MaskError(f"mask {name!r}: expected a tensor [{d_ff}] for layer {layer}, got {got}")
    if not mask.binary:
        if not bool(((mask.weight >= 0) & (mask.weight <= 1)).all()):
            raise MaskError(f"mask {name!r}: a mask is boolean or holds weights between 0 and 1")
        if hparams.mask_stage == "solve":
            raise MaskError(f"layer {layer}: a soft mask cannot restrict the problem; use mask_stage 'post'")
    return mask
