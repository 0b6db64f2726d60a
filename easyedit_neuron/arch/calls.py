"""How much of a model was run: calls, and how many whole passes they amount to."""

from __future__ import annotations

from .capture import _tensor_of
from .view import ModelView


class ModelCalls:
    """Context manager that counts the passes through a model inside it; nested ones count each for
    themselves.

    A row that runs r of the model's L blocks counts r / L of a forward equivalent (a block that is stopped in
    front of its down projection counts as run, one that a ``Prefix`` stands for does not); a row whose
    gradient runs back through r blocks r / L of a backward equivalent.

    Attributes:
        forward_calls, backward_calls: batched calls.
        forward_equivalents, backward_equivalents: whole passes of single rows.
    """

    def __init__(self, view: ModelView):
        self._view, self._handles = view, []
        self.forward_calls = self.backward_calls = 0
        self._forward_rows = self._backward_rows = 0

    @property
    def forward_equivalents(self) -> float:
        return self._forward_rows / self._view.n_layers

    @property
    def backward_equivalents(self) -> float:
        return self._backward_rows / self._view.n_layers

    def to_json(self) -> dict[str, float]:
        """All four."""
        names = ("forward_calls", "backward_calls", "forward_equivalents", "backward_equivalents")
        return {name: getattr(self, name) for name in names}

    def __enter__(self) -> ModelCalls:
        self._handles.append(self._view.model.register_forward_pre_hook(self._called))
        for layer in range(self._view.n_layers):
            # the FFN and not the block: of a block that is skipped the hooks run too
            mlp = self._view.mlp(layer)
            self._handles.append(mlp.register_forward_pre_hook(self._run, with_kwargs=True))
            self._handles.append(mlp.register_forward_hook(self._watch(layer == self._view.n_layers - 1)))
        return self

    def __exit__(self, *_error) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _called(self, _module, _args) -> None:
        self.forward_calls += 1

    def _run(self, _module, args, kwargs) -> None:
        self._forward_rows += len(args[0] if args else next(iter(kwargs.values())))

    def _watch(self, last: bool):
        def back(gradient) -> None:
            self._backward_rows += len(gradient)
            self.backward_calls += last

        def hook(_module, _args, output) -> None:
            out = _tensor_of(output)
            if out.requires_grad:
                out.register_hook(back)

        return hook
