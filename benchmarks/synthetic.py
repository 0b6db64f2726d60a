"""Random keys and covariances with the traits that make the editing systems hard to solve.

Keys share a mean direction and come in clusters (facts of one subject, subjects of one name), with norms from
1 to
30. The covariance has a few directions that carry almost all of its trace, like that of a language model's
FFN.
"""

import math

import torch

from easyedit_neuron.locate_then_edit.solver.problem import Problem
from easyedit_neuron.statistics.nullspace import Subspace


def _generator(seed: int) -> torch.Generator:
    """A generator on the CPU: the same numbers on every device."""
    return torch.Generator().manual_seed(seed)


class KeySource:
    """An endless stream of keys of one layer."""

    def __init__(self, d_ff: int, seed: int = 0, clusters: int = 50, device: str = "cpu"):
        self._random, self._d_ff, self._device = _generator(seed), d_ff, device
        self._mean = self._directions(1)
        self._centres = self._directions(clusters)

    def next(self, count: int) -> torch.Tensor:
        """Keys [d_ff, count], float32."""
        cluster = torch.randint(self._centres.shape[1], (count,), generator=self._random)
        mixed = 0.5 * self._mean + 0.6 * self._centres[:, cluster] + 0.6 * self._directions(count)
        norm = torch.exp(torch.rand(count, generator=self._random) * math.log(30))  # 1 to 30
        return (mixed / mixed.norm(dim=0) * norm).to(self._device)

    def _directions(self, count: int) -> torch.Tensor:
        directions = torch.randn(self._d_ff, count, generator=self._random)
        return directions / directions.norm(dim=0)


def energetic_directions(
    d_ff: int, rank: int, seed: int = 1, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """Orthonormal [d_ff, rank]: where the text has its energy."""
    random = torch.randn(d_ff, rank, generator=_generator(seed)).to(device, dtype)
    return torch.linalg.qr(random)[0].contiguous()


def covariance(directions: torch.Tensor, floor: float = 1e-4) -> torch.Tensor:
    """C [d_ff, d_ff], float32: eigenvalues 100 / j^2 along the directions, ``floor`` everywhere else."""
    scaled = directions * (10 / torch.arange(1, directions.shape[1] + 1, device=directions.device))
    result = scaled @ scaled.T
    result.diagonal().add_(floor)
    return (result + result.T) / 2


def null_space_of(directions: torch.Tensor) -> Subspace:
    """All that is orthogonal to the directions."""
    return Subspace(directions, complement=True)


def problem(path: str, directions: torch.Tensor, ridge: float, weight: float) -> Problem:
    """The system of ``alphaedit`` (null space of the directions) or ``memit`` (``weight`` times a
    covariance)."""
    if path == "alphaedit":
        return Problem(ridge, subspace=null_space_of(directions))
    return Problem(ridge, preserve=covariance(directions.float()), weight=weight)
