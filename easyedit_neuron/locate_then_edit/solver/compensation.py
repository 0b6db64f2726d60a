"""Error compensation: what masks have cut off from a layer's deltas is written by later edits.

OTE-SE adds the error of earlier masks to the problem of the next edit: with m the mask's weights,
``A = lambda C + C_p + K K^T + L2 I`` and E the error in the normal equations,

    ``D_t = (R K^T - E_{t-1}) A_t^-1``,  written: ``D_t diag(m)``,  ``E_t = D_t (diag(m) - I) A_t``.

Let ``Q = D (I - diag(m))`` be the part that was cut off, so that ``E = -Q A``, and let A gain nothing but the
keys of the edits. Then ``Q_{t-1} A_{t-1} A_t^-1 = Q_{t-1} (I - K X^T)`` with the edit's key factor
``X = A_t^-1 K``, and the three lines are

    ``D_t = Q_{t-1} + (R - Q_{t-1} K) X^T``,  written: ``D_t diag(m)``,  ``Q_t = D_t (I - diag(m))``.

The edit is solved as if the weights were ``W + Q``, and a neuron gets everything it lacks as soon as a mask
has it. No E of d_model x d_ff and no A is needed, and the same lines hold on every path. Q is the sum of
``own - written`` over the edits in the weights, which is what undoing one of them takes out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from ...edits.record import Factors, add_factors


@dataclass(frozen=True)
class Step:
    """One change of Q: ``Q <- (Q + values keys^T) diag(1 - weight)``.

    Attributes:
        after: number of the state's steps with this one.
        change: values [d_model, n] and keys [d_ff, n].
        weight: float32 [d_ff], weights of the mask; None: zero.
    """

    after: int
    change: Factors
    weight: Tensor | None = None

    def remaining(self, rows: Tensor) -> Tensor:
        """``diag(1 - weight) rows`` for rows [d_ff, n]."""
        return rows if self.weight is None else rows * (1 - self.weight.to(rows))[:, None]


@dataclass(frozen=True)
class Compensation:
    """Q of one layer, and the steps that it came from; every operation gives a new one.

    Attributes:
        rest: Q in factors, values [d_model, r] and keys [d_ff, r], r at most d_model; columns that have been
            written are gone.
        steps: all steps, in order. Of an edit they hold d_model + d_ff numbers for each column, and d_ff for
            its mask.
    """

    rest: Factors
    steps: tuple[Step, ...] = ()

    @classmethod
    def none(cls, d_model: int, d_ff: int, like: Tensor) -> Compensation:
        """Q = 0, in the dtype and on the device of ``like``."""
        return cls((like.new_zeros(d_model, 0), like.new_zeros(d_ff, 0)))

    def at(self, keys: Tensor) -> Tensor:
        """``Q K`` [d_model, n] for K [d_ff, n]."""
        values, rows = self.rest
        return values @ (rows.T @ keys)

    def added(self, change: Factors, after: int, weight: Tensor | None = None) -> Compensation:
        """After a ``Step``."""
        step = Step(after, change, weight)
        values, keys = add_factors(self.rest, change)
        keys = step.remaining(keys)
        left = keys.any(0)
        return Compensation((values[:, left], keys[:, left]), (*self.steps, step))

    def truncated(self, count: int) -> Compensation:
        """As it was when the state had ``count`` steps."""
        if not self.steps or self.steps[-1].after <= count:
            return self
        values, keys = self.rest
        result = Compensation((values[:, :0], keys[:, :0]))
        for step in self.steps:
            if step.after <= count:
                result = result.added(step.change, step.after, step.weight)
        return result

    def without_step(self, number: int) -> Compensation:
        """Steps renumbered after the state has lost its step ``number``, from 1; Q is the same."""
        later = (replace(step, after=step.after - (step.after > number)) for step in self.steps)
        return replace(self, steps=tuple(later))

    def saved(self) -> dict[str, Any]:
        """Tensors and plain values for ``restored``."""
        steps = [
            {"after": step.after, "change": list(step.change), "weight": step.weight} for step in self.steps
        ]
        return {"rest": list(self.rest), "steps": steps}

    @classmethod
    def restored(cls, saved: Mapping[str, Any]) -> Compensation:
        """The one that was saved."""
        steps = tuple(Step(step["after"], tuple(step["change"]), step["weight"]) for step in saved["steps"])
        return cls(tuple(saved["rest"]), steps)

    @property
    def held_bytes(self) -> int:
        """Bytes of Q and of the steps."""
        weights = [step.weight for step in self.steps if step.weight is not None]
        tensors = [*self.rest, *(factor for step in self.steps for factor in step.change), *weights]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
