"""Points and weights for an integral from 0 to 1."""

from typing import Literal

import numpy
import torch
from torch import Tensor

RULES = ("gauss", "right")
Rule = Literal["gauss", "right"]


def nodes(rule: Rule, steps: int) -> tuple[Tensor, Tensor]:
    """Points in (0, 1] and their weights, both float64 ``[steps]``.

    ``gauss``: Gauss-Legendre, exact for polynomials of degree ``2 steps - 1``. ``right``: the Riemann sum at
    ``j / steps``, j = 1..steps.
    """
    if rule == "right":
        points = torch.arange(1, steps + 1, dtype=torch.float64) / steps
        return points, torch.full((steps,), 1.0 / steps, dtype=torch.float64)
    points, weights = numpy.polynomial.legendre.leggauss(steps)
    return torch.from_numpy((points + 1) / 2), torch.from_numpy(weights / 2)
