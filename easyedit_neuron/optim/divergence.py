"""The KL terms that keep a model's predictions while vectors are trained."""

from typing import Literal

from torch import Tensor

Direction = Literal["before_after", "after_before"]


def divergence(before: Tensor, after: Tensor, direction: Direction) -> Tensor:
    """``KL(before || after)``, or with ``after_before`` ``KL(after || before)``, in nats: ``[K]`` of
    log-probabilities ``[K, V]``."""
    first, second = (before, after) if direction == "before_after" else (after, before)
    return (first.exp() * (first - second)).sum(-1)
