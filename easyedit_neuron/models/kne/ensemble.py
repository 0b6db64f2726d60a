"""The ensemble: the neurons of all target weights whose scores reach one threshold (Eq. 6 and 7)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...arch import Projection
from ...arch.projections import Axis
from ...errors import EditError


@dataclass(frozen=True)
class Ensemble:
    """Which neurons are trained.

    Attributes:
        members: ``(site, int64 [n] ascending numbers of its rows or columns)``, sites with at least one.
        threshold: ``t_p``, the lowest selected score.
        p: share of the scored neurons.
        share: share of the model's parameters that the neurons hold.
        parameters: number of parameters that they hold.
    """

    members: list[tuple[Projection, Tensor]]
    threshold: float
    p: float
    share: float
    parameters: int

    def to_info(self) -> dict[str, Any]:
        """For the record, as plain JSON values."""
        return {
            "neurons": {site.key: len(units) for site, units in self.members},
            "threshold": self.threshold,
            "p": self.p,
            "parameters_moved": self.parameters,
            "share_moved": self.share,
        }


def choose(
    scores: Mapping[str, Tensor],
    sites: Sequence[Projection],
    axis: Axis,
    model: nn.Module,
    share: float,
    p: float | None = None,
) -> Ensemble:
    """All neurons whose score is at least the (1 - p) quantile of all scores together, ties included.

    Args:
        scores: ``{site.key: [units]}``.
        sites: the linear maps, which say how many parameters a neuron has.
        axis: whether a neuron is a row or a column.
        model: its parameters (tied ones once) are the whole of ``share``.
        share: without ``p``: the largest ensemble, of at least one neuron, that holds at most this share of
            the parameters.
        p: share of the neurons, in place of ``share``.

    Raises:
        EditError: all scores are equal.
    """
    flat = torch.cat([scores[site.key].to(torch.float64) for site in sites])
    if bool((flat == flat[0]).all()) and len(flat) > 1:
        raise EditError(
            "all scores are equal: the target modules do not change the answer's probability (it may be "
            "certain or impossible); choose other layers or modules, or localize: shared"
        )
    sizes = [site.size(axis) for site in sites]
    costs = torch.cat([torch.full((count,), parameters) for count, parameters in sizes])
    total = sum(parameter.numel() for parameter in model.parameters())
    descending, order = flat.sort(descending=True)
    if p is None:
        count = max(1, int((costs[order].cumsum(0) <= share * total).sum()))
    else:
        # Values at or above the linearly interpolated quantile. Rounding may lift (1 - p)(N - 1) a little.
        count = len(flat) - math.ceil((1.0 - p) * (len(flat) - 1) - 1e-9)
    threshold = descending[count - 1]
    selected = flat >= threshold
    masks = selected.split([count for count, _ in sizes])
    members = [(site, mask.nonzero()[:, 0]) for site, mask in zip(sites, masks) if bool(mask.any())]
    parameters = int(costs[selected].sum())
    return Ensemble(
        members, float(threshold), int(selected.sum()) / len(flat), parameters / total, parameters
    )
