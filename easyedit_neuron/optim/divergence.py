"""The KL terms that keep a model's predictions while vectors are trained."""

from typing import Literal

from torch import Tensor

Direction = Literal["before_after", "after_before"]


def divergence(before: Tensor, after: Tensor, direction: Direction) -> Tensor:
    """KL divergence in nats [K] of log-probabilities [K, V]: ``KL(before || after)``, or the other
    direction."""
    first, second = (before, after) if direction == "before_after" else (after, before)
    return (first.exp() * (first - second)).sum(-1)
