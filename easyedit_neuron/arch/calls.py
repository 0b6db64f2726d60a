"""Counts of forward and backward passes, also in whole passes through the model."""

from __future__ import annotations

from functools import partial

from .capture import hidden_states_out
from .view import ModelView

COUNTS = ("forward_calls", "backward_calls", "forward_equivalents", "backward_equivalents")


class ModelCalls:
    """Context manager that counts the passes through a model inside it. Nested ones count independently.

    A row of a batch that runs r of the model's L blocks counts r / L of a forward equivalent. A block that
    stops in front of its down projection counts as run; one that a ``Prefix`` replaces does not. A row
    whose gradient runs back through r blocks counts r / L of a backward equivalent.

    Attributes:
        forward_calls, backward_calls: batched calls.
        forward_equivalents, backward_equivalents: whole passes of single rows.
    """

    def __init__(self, view: ModelView):
        self._view, self._handles = view, []
        self.forward_calls = self.backward_calls = 0
        self._forward_rows = self._backward_rows = 0
        self._rows = 0  # of the batch that is run now

    @property
    def forward_equivalents(self) -> float:
        return self._forward_rows / self._view.n_layers

    @property
    def backward_equivalents(self) -> float:
        return self._backward_rows / self._view.n_layers

    def to_json(self) -> dict[str, float]:
        """All four counts by name."""
        return {name: getattr(self, name) for name in COUNTS}

    def __enter__(self) -> ModelCalls:
        self._handles.append(self._view.model.register_forward_pre_hook(self._count_call, with_kwargs=True))
        for layer in range(self._view.n_layers):
            # The FFN and not the block: the hooks of a skipped block run too.
            mlp = self._view.mlp(layer)
            self._handles.append(mlp.register_forward_pre_hook(self._count_forward))
            self._handles.append(mlp.register_forward_hook(self._backward_counter(layer)))
        return self

    def __exit__(self, *_error) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _count_call(self, _module, args, kwargs) -> None:
        self.forward_calls += 1
        self._rows = len(args[0] if args else kwargs["input_ids"])

    def _count_forward(self, _module, _args) -> None:
        self._forward_rows += self._rows

    def _backward_counter(self, layer: int):
        def count(_gradient, rows: int) -> None:
            self._backward_rows += rows
            self.backward_calls += layer == self._view.n_layers - 1

        def hook(_module, _args, output) -> None:
            hidden = hidden_states_out(output)
            if hidden.requires_grad:
                hidden.register_hook(partial(count, rows=self._rows))

        return hook
