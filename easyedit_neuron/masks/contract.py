"""What a mask function is.

A mask function takes ``scores [B, d_ff]`` of one layer (B prompts or target tokens, floating point, finite;
see ``attribution``), and keyword options, among them, if it wants it, ``layer: int | None``, the layer's
number (for masks that differ by layer in something other than the scores). It returns a boolean tensor
``[d_ff]``, or a ``NeuronMask``, on the scores' device. It is pure: no model, no global state, nothing random
but under a ``seed`` option (filled in from the hyperparameter), the scores are not changed. Whatever is wrong
with scores or options is a ``MaskError`` that names it. ``mask_function``, a decorator, checks scores and
option names. ``register_mask`` gives the function a name and says which scores it wants; options are then set
in the hyperparameter ``mask_options``, checked against the function's signature and its annotations.

The mask multiplies row i of ``W_down^T``, i.e. column i of the down projection's ``[d_model, d_ff]`` matrix:
neuron i's value vector.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..errors import MaskError
from ..utils.suggest import did_you_mean


@dataclass(frozen=True)
class NeuronMask:
    """The neurons of one layer that may change, and how they were chosen.

    Attributes:
        mask: ``[d_ff]`` bool, or float32 weights in [0, 1] for a soft mask.
        general, specific: ``[d_ff]`` bool, the two kinds of neurons; ``None`` for masks that know no kinds.
        general_ratio, specific_ratio: shares asked for (the real ones are higher when scores tie at the
            threshold).
        general_entropy, specific_entropy: normalised entropies H_g, H_s in [0, 1].
        general_threshold, specific_threshold: scores at the cut.
        info: what else the mask has to say, as plain JSON values.
    """

    mask: Tensor
    general: Tensor | None = None
    specific: Tensor | None = None
    general_ratio: float | None = None
    specific_ratio: float | None = None
    general_entropy: float | None = None
    specific_entropy: float | None = None
    general_threshold: float | None = None
    specific_threshold: float | None = None
    info: dict = field(default_factory=dict)

    @property
    def weight(self) -> Tensor:
        """float32 ``[d_ff]``, what the rows of the delta are multiplied by."""
        return self.mask.float()

    @property
    def rows(self) -> Tensor:
        """bool ``[d_ff]``, where the weight is not 0."""
        return self.mask != 0

    @property
    def binary(self) -> bool:
        """Whether the mask is a selection; a soft one holds weights."""
        return self.mask.dtype == torch.bool

    @property
    def size(self) -> int:
        """Neurons that may change: those with a weight other than 0."""
        return int(self.rows.sum())

    @property
    def density(self) -> float:
        """Share of neurons that may change."""
        return self.size / self.mask.numel()

    @property
    def mean_weight(self) -> float:
        """Mean of the mask; equals ``density`` for a binary one."""
        return float(self.mask.float().mean())

    @property
    def indices(self) -> Tensor:
        """int64 ``[size]``, ascending: the neurons that may change."""
        return self.mask.nonzero().flatten()

    @property
    def full(self) -> bool:
        """Whether the mask changes nothing (every weight is 1)."""
        return bool((self.mask == 1).all())

    @property
    def counts(self) -> dict[str, int]:
        """Neurons of each kind: ``general``, ``specific``, ``overlap`` (both), ``selected``; kinds only where
        known."""
        counts = {"selected": self.size}
        if self.general is not None and self.specific is not None:
            counts["general"] = int(self.general.sum())
            counts["specific"] = int(self.specific.sum())
            counts["overlap"] = int((self.general & self.specific).sum())
        return counts

    @property
    def ratios(self) -> dict[str, float | None]:
        """``{"general": ..., "specific": ...}`` shares asked for."""
        return {"general": self.general_ratio, "specific": self.specific_ratio}

    @property
    def entropies(self) -> dict[str, float | None]:
        """``{"general": H_g, "specific": H_s}``."""
        return {"general": self.general_entropy, "specific": self.specific_entropy}

    def to_json(self) -> dict:
        """Plain numbers for a record: everything but the per-neuron tensors."""
        return {
            "d_ff": self.mask.numel(),
            "density": self.density,
            "mean_weight": self.mean_weight,
            "counts": self.counts,
            "ratios": self.ratios,
            "entropies": self.entropies,
            "thresholds": {"general": self.general_threshold, "specific": self.specific_threshold},
            **self.info,
        }


MaskFunction = Callable[..., NeuronMask | Tensor]


def mask_function(function: MaskFunction, check: Callable | None = None) -> MaskFunction:
    """Check scores and option names before ``function`` runs; half-precision scores are made float32.

    ``check`` stands for ``checked_scores`` where the scores are no such tensor.

    Raises (at the call):
        MaskError: scores of another shape than ``[B, d_ff]`` with ``B >= 1``, not floating point or not
            finite; an option that the function does not have, or a required one that is missing.
    """
    parameters = list(inspect.signature(function).parameters.values())[1:]
    known = [p.name for p in parameters]
    required = [p.name for p in parameters if p.default is inspect.Parameter.empty]

    @functools.wraps(function)
    def checked(scores: Tensor, **options):
        unknown = next((name for name in options if name not in known), None)
        if unknown is not None:
            raise MaskError(f"{function.__name__} has no option {unknown!r}: {did_you_mean(unknown, known)}")
        missing = next((name for name in required if name not in options), None)
        if missing is not None:
            raise MaskError(f"{function.__name__} needs the option {missing!r}")
        return function((check or checked_scores)(scores), **options)

    return checked


def checked_scores(scores: Tensor) -> Tensor:
    """Scores ``[B, d_ff]``, at least float32; a ``MaskError`` unless they are finite and of that form."""
    if not isinstance(scores, Tensor) or scores.dim() != 2 or not scores.is_floating_point():
        got = f"{scores.dtype} {list(scores.shape)}" if isinstance(scores, Tensor) else type(scores).__name__
        raise MaskError(f"scores: expected a floating-point tensor [prompts, d_ff], got {got}")
    if scores.shape[0] < 1 or scores.shape[1] < 1:
        raise MaskError(f"scores: expected at least one prompt and one neuron, got {list(scores.shape)}")
    finite = torch.isfinite(scores)
    if not finite.all():
        prompt = int((~finite).any(dim=1).nonzero()[0])
        raise MaskError(
            f"scores: {int((~finite).sum())} of {scores.numel()} are not finite (first in prompt {prompt}); "
            "the model's activations overflow or its weights are broken"
        )
    return scores.detach() if scores.dtype == torch.float64 else scores.detach().float()


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise a ``MaskError`` with the nearest valid value unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise MaskError(f"{name}: {value!r} is not a choice: {did_you_mean(value, choices)}")


def check_share(name: str, value: object) -> float:
    """``value`` as a float in (0, 1], or a ``MaskError``."""
    number = check_number(name, value)
    if not 0.0 < number <= 1.0:
        raise MaskError(f"{name}: must be greater than 0 and at most 1, got {value!r}")
    return number


def check_number(name: str, value: object, above: float = -math.inf) -> float:
    """``value`` as a finite float greater than ``above``, or a ``MaskError``."""
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not math.isfinite(value)
        or value <= above
    ):
        condition = "" if above == -math.inf else f" greater than {above:g}"
        raise MaskError(f"{name}: expected a finite number{condition}, got {value!r}")
    return float(value)


def min_max(values: Tensor) -> Tensor:
    """Values scaled to [0, 1]; all ones where they tell no neuron from another."""
    low, high = values.min(), values.max()
    return torch.ones_like(values) if low == high else (values - low) / (high - low)
