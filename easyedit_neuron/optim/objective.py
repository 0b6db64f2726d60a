"""Adam over a batch of members, each with its own loss and stop criterion, and the losses' KL term."""

from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor


class Objective(ABC):
    """What ``minimise`` minimises: m members, usually the requests of a batch.

    Members share the forward pass and nothing else, so that a batch gives what single requests give except
    for rounding. A member that meets its stop criterion leaves the batch.

    Attributes:
        parameters: what Adam changes; zero is the usual start.
    """

    parameters: list[Tensor]

    @abstractmethod
    def losses(self) -> Tensor:
        """Losses [m] of the members that are left, at the present parameters."""

    @abstractmethod
    def assess(self, losses: Tensor, step: int, last: bool) -> list[bool]:
        """Record the losses and say which members go on. After the last evaluation none does.

        Args:
            losses: [m], detached.
            step: number of Adam steps so far.
            last: no step follows this evaluation.
        """

    def backward(self, losses: Tensor, active: list[bool]) -> None:
        """Compute the gradients of the members that go on."""
        losses[torch.tensor(active, device=losses.device)].sum().backward()

    def constrain(self) -> None:
        """Put the parameters back into their bounds after a step."""

    def keep(self, active: list[bool]) -> None:
        """Drop the members that do not go on."""


def minimise(objective: Objective, lr: float, evaluations: int) -> None:
    """Run Adam on an objective: at most ``evaluations`` evaluations with a step between any two of them."""
    optimizer = torch.optim.Adam(objective.parameters, lr=lr)
    for step in range(evaluations):
        last = step == evaluations - 1
        optimizer.zero_grad()
        with torch.set_grad_enabled(not last):
            losses = objective.losses()
        active = objective.assess(losses.detach(), step, last)
        if last or not any(active):
            return
        objective.backward(losses, active)
        optimizer.step()
        objective.constrain()
        if not all(active):
            objective.keep(active)


Direction = Literal["before_after", "after_before"]


def divergence(before: Tensor, after: Tensor, direction: Direction) -> Tensor:
    """KL divergence in nats [K] of log-probabilities [K, V]: ``KL(before || after)``, or the other
    direction."""
    first, second = (before, after) if direction == "before_after" else (after, before)
    return (first.exp() * (first - second)).sum(-1)
