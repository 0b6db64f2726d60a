"""Hyperparameters of a method on the paths that has a mask of its own, whose options are fields."""

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

from ..errors import HparamsError
from .hparams import PathHyperParams


@dataclass(kw_only=True)
class OwnMaskHyperParams(PathHyperParams):
    """A subclass sets ``OWN_MASK``, its mask, and ``OWN_OPTIONS``, {mask: {option of mask or scores: field
    that holds it}}.

    Other masks stay available; they have their options in ``mask_options``.
    """

    OWN_MASK: ClassVar[str]
    OWN_OPTIONS: ClassVar[dict[str, dict[str, str]]]

    def validate(self) -> None:
        """No option of a mask in two places, and none where it is not read."""
        super().validate()
        own = self.OWN_OPTIONS.get(self.mask, {})
        for option in self.mask_options or {}:
            if option in own:
                raise HparamsError(f"field 'mask_options': set {option!r} by the field '{own[option]}'")
        if self.mask == self.OWN_MASK:
            return
        choice, usual = self.mask_choice(), _defaults(type(self))
        elsewhere = {*choice.options, "attribution"} if choice.scores != "none" else choice.options
        for option, name in self.OWN_OPTIONS[self.OWN_MASK].items():
            if option in elsewhere and getattr(self, name) != usual[name]:
                raise HparamsError(
                    f"field '{name}': is read by mask '{self.OWN_MASK}'; mask {self.mask!r} takes it in "
                    "mask_options"
                )

    def usual_mask_options(self) -> dict[str, Any]:
        """The fields that are options of the mask."""
        own = self.OWN_OPTIONS.get(self.mask, {})
        return {
            **super().usual_mask_options(),
            **{option: getattr(self, name) for option, name in own.items()},
        }


def _defaults(cls: type) -> dict[str, Any]:
    return {
        field.name: field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        for field in dataclasses.fields(cls)
    }
