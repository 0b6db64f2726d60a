"""Random keys and covariances with the traits that make the editing systems hard to solve.

Keys share a mean direction and come in clusters (facts about one subject, subjects of one name), with norms
from 1 to 30. The covariance has a few directions that carry almost all of its trace, like that of a language
model's FFN activations.
"""

import math

import torch

from easyedit_neuron.statistics.nullspace import Subspace


def generator(seed: int) -> torch.Generator:
    """A generator on the CPU: the same numbers on every device."""
    return torch.Generator().manual_seed(seed)


class KeySource:
    """An endless stream of keys of one layer."""

    def __init__(self, d_ff: int, seed: int = 0, clusters: int = 50, device: str = "cpu"):
        self._random, self.d_ff, self._device = generator(seed), d_ff, device
        self._mean = self._direction(1)
        self._centres = self._direction(clusters)

    def next(self, count: int) -> torch.Tensor:
        """Keys [d_ff, count], float32."""
        which = torch.randint(self._centres.shape[1], (count,), generator=self._random)
        mixed = 0.5 * self._mean + 0.6 * self._centres[:, which] + 0.6 * self._direction(count)
        norm = torch.exp(torch.rand(count, generator=self._random) * math.log(30))  # 1 to 30
        return (mixed / mixed.norm(dim=0) * norm).to(self._device)

    def _direction(self, count: int) -> torch.Tensor:
        drawn = torch.randn(self.d_ff, count, generator=self._random)
        return drawn / drawn.norm(dim=0)


def energetic_directions(
    d_ff: int, rank: int, seed: int = 1, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """Orthonormal [d_ff, rank]: where the text has its energy."""
    return torch.linalg.qr(torch.randn(d_ff, rank, generator=generator(seed)).to(device, dtype))[
        0
    ].contiguous()


def covariance(directions: torch.Tensor, floor: float = 1e-4) -> torch.Tensor:
    """C [d_ff, d_ff], float32: eigenvalues 100 / j^2 along the directions, ``floor`` everywhere else."""
    scale = 10 / torch.arange(1, directions.shape[1] + 1, device=directions.device)
    made = (directions * scale) @ (directions * scale).T
    made.diagonal().add_(floor)
    return (made + made.T) / 2


def null_space_of(directions: torch.Tensor) -> Subspace:
    """All that is orthogonal to the directions."""
    return Subspace(directions, complement=True)
