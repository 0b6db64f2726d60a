"""Reading and replacing hidden states of a forward pass. The only place in the package that sets hooks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial

from torch import Tensor, nn

from ..errors import ArchitectureError
from .view import ModelView

WANTS = ("ffn_in", "key", "resid_mid", "ffn_out", "layer_out", "final_hidden")


class _StopForward(Exception):
    """Ends a forward pass once everything has been captured; never leaves the ``with`` block."""


@dataclass(frozen=True)
class Prefix:
    """The output of the lower blocks of a forward pass, from which later passes can start.

    Attributes:
        layer: number of the last of these blocks.
        hidden: ``[B, T, d_model]``, its output, detached.
        tail: what the block returns behind the hidden states; ``None`` if it returns them alone.
    """

    layer: int
    hidden: Tensor
    tail: tuple | None

    def rows(self, index: Tensor) -> Prefix:
        """Prefix of the batch rows in an index tensor."""
        return replace(self, hidden=self.hidden[index.to(self.hidden.device)])

    def output(self, hidden: Tensor):
        """``hidden`` in the form in which a block returns it."""
        return hidden if self.tail is None else (hidden, *self.tail)


class Capture:
    """Context manager that keeps hidden states of the forward passes run inside it (the latest pass wins).

    Hooks exist only inside the ``with`` block and are removed after an exception too. Works under grad and
    ``no_grad``. Captured tensors are the model's own: not copied, not detached.

    Args:
        view: the model.
        layers: layers whose ``key``, ``resid_mid``, ``ffn_out``, ``layer_out`` are captured.
        want: names of the states to capture. Default ``("key",)``.

            - ``ffn_in``: input of the FFN, behind its norm; ``[B, T, d_model]``.
            - ``key``: input of the down projection, i.e. the neuron activations q; ``[B, T, d_ff]``.
            - ``resid_mid``: residual stream after attention, before the FFN is added; ``[B, T, d_model]``.
              In a parallel block (GPT-J, GPT-NeoX): input + attention, which the FFN there does not read.
            - ``ffn_out``: output of the down projection, before any post-FFN norm; ``[B, T, d_model]``.
            - ``layer_out``: output of the block, as the next block gets it; ``[B, T, d_model]``.
            - ``final_hidden``: input of the final norm; ``[B, T, d_model]``.
        stop_after: where the forward ends; ``None`` (default): it runs to its end. The call of the model
            does not return if it is ended, so nothing after it in the ``with`` block runs.

            - a layer number: after this layer.
            - ``"final"``: after the last layer, before the final norm; no logits are computed.
            - ``"key"``: in front of the down projection of the last of ``layers``; only keys can be captured.
        edit_layer_out: ``{layer: f}``, replaces the output of a block by ``f(output [B, T, d_model])``.
        edit_key: ``{layer: f}``, replaces the input of a down projection by ``f(input [B, T, d_ff])``. A
            captured ``key`` is the edited one.
        edit_modules: ``(layer, module name, f)``, replaces the output of a module of the block by ``f(output,
            input)``. Several edits of a module act in their order. For a down projection the input is the
            (edited) ``key``, and a captured ``ffn_out`` is the edited output.
        prefix_of: layer whose output, before any edit, is stored as ``prefix``.
        skip: a ``Prefix`` of an earlier pass over the same batch. Its blocks are not run again: the last of
            them returns the stored hidden states. The result is exact. Captures and edits must lie at the
            prefix's end or behind it.

    Attributes:
        ffn_in, key, resid_mid, ffn_out, layer_out: ``{layer: tensor}``, filled as ``want`` says.
        final_hidden: tensor or ``None``.
        prefix: ``Prefix`` up to ``prefix_of``, or ``None``.

    Raises:
        ArchitectureError: an unknown name in ``want``; a layer that does not exist, lies behind
            ``stop_after`` or inside ``skip``.

    Example:
        >>> with torch.no_grad(), Capture(view, [3], want={"key"}, stop_after=3) as seen:
        ...     model(input_ids=ids, attention_mask=mask)
        >>> seen.key[3].shape
        torch.Size([2, 7, 11008])
    """

    def __init__(
        self,
        view: ModelView,
        layers: Iterable[int],
        want: Collection[str] = ("key",),
        stop_after: int | str | None = None,
        edit_layer_out: Mapping[int, Callable[[Tensor], Tensor]] | None = None,
        edit_key: Mapping[int, Callable[[Tensor], Tensor]] | None = None,
        edit_modules: Iterable[tuple[int, str, Callable[[Tensor, Tensor], Tensor]]] = (),
        prefix_of: int | None = None,
        skip: Prefix | None = None,
    ):
        self.view = view
        self.layers = list(dict.fromkeys(layers))
        self.want = {want} if isinstance(want, str) else set(want)
        self.stop_after = stop_after
        self.layer_edits = dict(edit_layer_out or {})
        self.key_edits = dict(edit_key or {})
        self.module_edits = list(edit_modules)
        self.prefix_of = prefix_of
        self.skip = skip
        self._check()
        self.ffn_in: dict[int, Tensor] = {}
        self.key: dict[int, Tensor] = {}
        self.resid_mid: dict[int, Tensor] = {}
        self.ffn_out: dict[int, Tensor] = {}
        self.layer_out: dict[int, Tensor] = {}
        self.final_hidden: Tensor | None = None
        self.prefix: Prefix | None = None
        self._block_inputs: dict[int, Tensor] = {}
        self._token_shape: tuple[int, int] | None = None  # (B, T), where FFNs get them as one dimension
        self._cleanup = ExitStack()
        self._stop = _StopForward()

    def _check(self) -> None:
        unknown = self.want - set(WANTS)
        if unknown:
            raise ArchitectureError(f"want: unknown {sorted(unknown)}; known: {', '.join(WANTS)}")
        # Every place that is touched, as (layer, whether it is the block's output or inside the block).
        reads_inside = bool(self.want - {"layer_out", "final_hidden"})
        outputs = [*self.layer_edits, *([] if self.prefix_of is None else [self.prefix_of])]
        edited_inside = [*self.key_edits, *(layer for layer, _, _ in self.module_edits)]
        places = [(layer, not reads_inside) for layer in self.layers]
        places += [(layer, True) for layer in outputs] + [(layer, False) for layer in edited_inside]
        for layer, _ in places:
            self.view.check_layer(layer)
        first_place = (-1, False) if self.skip is None else (self.skip.layer, True)
        skipped = [place[0] for place in places if place < first_place]
        if skipped:
            raise ArchitectureError(f"skip: layer {skipped[0]} is not run and cannot be captured or edited")
        if self.stop_after == "key":
            last = max(self.layers, default=-1)
            outputs += [layer for layer, _, _ in self.module_edits]
            if self.want != {"key"} or not self.layers or any(layer >= last for layer in outputs):
                raise ArchitectureError(
                    "stop_after='key' ends the forward in front of the last layer's down projection: want "
                    "may only be 'key', and no output of that layer can be edited or kept"
                )
        elif self.stop_after not in (None, "final"):
            self.view.check_layer(self.stop_after)
            late = [f"layer {layer}" for layer, _ in places if layer > self.stop_after]
            late += ["final_hidden"] if "final_hidden" in self.want else []
            if late:
                raise ArchitectureError(
                    f"stop_after={self.stop_after} ends the forward before {late[0]} is reached"
                )

    def __enter__(self) -> Capture:
        with ExitStack() as on_error:
            on_error.callback(self._remove_hooks)
            view = self.view
            self._hook_quirks()
            for layer in range(0 if self.skip is None else self.skip.layer + 1):
                self._skip(view.layer(layer), self.skip, layer)
            for layer, edit in self.key_edits.items():
                self._hook_input(view.down_proj(layer), partial(_edited_input, self._on_tokens(edit)))
            for _, name, edit in self.module_edits:
                self._hook_output(
                    view.model.get_submodule(name), partial(_edited_module_output, self._on_tokens(edit))
                )
            for layer in self.layers:
                if "ffn_in" in self.want:
                    self._read_input(view.mlp(layer), partial(self.ffn_in.__setitem__, layer))
                if "key" in self.want:
                    self._read_input(view.down_proj(layer), partial(self.key.__setitem__, layer))
                if "ffn_out" in self.want:
                    self._read_output(view.down_proj(layer), partial(self.ffn_out.__setitem__, layer))
                if "resid_mid" in self.want:
                    self._capture_resid_mid(layer)
            # Block outputs come last and in this order: the prefix is unedited, a captured output is edited,
            # and the forward stops after both.
            if self.prefix_of is not None:
                self._hook_output(view.layer(self.prefix_of), self._keep_prefix)
            for layer, edit in self.layer_edits.items():
                self._hook_output(view.layer(layer), partial(_edited_block_output, edit))
            if "layer_out" in self.want:
                for layer in self.layers:
                    self._read_output(view.layer(layer), partial(self.layer_out.__setitem__, layer))
            if "final_hidden" in self.want:
                self._read_input(view.final_norm, partial(setattr, self, "final_hidden"))
            if self.stop_after == "final":
                self._read_input(view.final_norm, self._halt)
            elif self.stop_after == "key":
                self._read_input(view.down_proj(max(self.layers)), self._halt)
            elif self.stop_after is not None:
                self._read_output(view.layer(self.stop_after), self._halt)
            on_error.pop_all()
        return self

    def __exit__(self, kind, error, trace) -> bool:
        self._remove_hooks()
        if error is not self._stop:
            return False
        # The traceback holds the forward's tensors, and this object holds the error: only the garbage
        # collector would free them.
        error.__traceback__ = None
        return True

    def _remove_hooks(self) -> None:
        self._cleanup.close()
        self._block_inputs.clear()

    def _hook_input(self, module: nn.Module, hook: Callable) -> None:
        self._cleanup.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)

    def _hook_output(self, module: nn.Module, hook: Callable) -> None:
        self._cleanup.callback(module.register_forward_hook(hook, with_kwargs=True).remove)

    def _read_input(self, module: nn.Module, read: Callable[[Tensor], None]) -> None:
        self._hook_input(
            module, lambda _module, args, kwargs: read(self._by_token(hidden_states_in(args, kwargs)))
        )

    def _read_output(self, module: nn.Module, read: Callable[[Tensor], None]) -> None:
        self._hook_output(
            module, lambda _module, _args, _kwargs, output: read(self._by_token(hidden_states_out(output)))
        )

    def _hook_quirks(self) -> None:
        """Hooks for what blocks of some architectures do with the tensors of their FFN."""
        if "flat" in self.view.arch.ffn_quirks:

            def read_shape(hidden: Tensor) -> None:
                self._token_shape = (hidden.shape[0], hidden.shape[1])

            self._read_input(self.view.layer(0), read_shape)
        if "changed_in_place" in self.view.arch.ffn_quirks:
            for layer in range(self.view.n_layers):
                # The block gets a copy to change, so that the FFN's own output stays as it is.
                self._hook_output(
                    self.view.mlp(layer), lambda _module, _args, _kwargs, output: output.clone()
                )

    def _by_token(self, states: Tensor) -> Tensor:
        """``[B, T, d]`` of states that a block may have as ``[B T, d]``."""
        flat = self._token_shape is not None and states.dim() == 2
        return states.unflatten(0, self._token_shape) if flat else states

    def _on_tokens(self, edit: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """An edit of states ``[B, T, d]`` as one of states in the form of the block."""
        if "flat" not in self.view.arch.ffn_quirks:
            return edit

        def edited(*states: Tensor) -> Tensor:
            return edit(*map(self._by_token, states)).reshape(states[0].shape)

        return edited

    def _capture_resid_mid(self, layer: int) -> None:
        if not self.view.arch.parallel_residual:
            self._read_input(self.view.pre_ffn_norm(layer), partial(self.resid_mid.__setitem__, layer))
            return

        def add_to_input(attention: Tensor) -> None:
            self.resid_mid[layer] = self._block_inputs.pop(layer) + attention

        self._read_input(self.view.layer(layer), partial(self._block_inputs.__setitem__, layer))
        self._read_output(self.view.attn_branch(layer), add_to_input)

    def _keep_prefix(self, _module, _args, _kwargs, output) -> None:
        tail = tuple(output[1:]) if isinstance(output, (tuple, list)) else None
        self.prefix = Prefix(self.prefix_of, hidden_states_out(output).detach(), tail)

    def _skip(self, block: nn.Module, prefix: Prefix, layer: int) -> None:
        # An instance attribute shadows the method and leaves the block's hooks in place.
        shadowed = block.__dict__.get("forward")  # accelerate may have set one already
        if shadowed is None:
            self._cleanup.callback(delattr, block, "forward")
        else:
            self._cleanup.callback(setattr, block, "forward", shadowed)
        block.forward = partial(_skipped_forward, prefix, layer)

    def _halt(self, _tensor: Tensor) -> None:
        raise self._stop


def take(states: Tensor, rows: Tensor, positions: Tensor) -> Tensor:
    """``states[rows, positions]`` of ``[B, T, ...]``, on the states' device; indices may lie on another."""
    return states[rows.to(states.device), positions.to(states.device)]


def prefix_before(
    view: ModelView, inputs: Mapping[str, Tensor], layer: int, prefix: Prefix | None = None
) -> Prefix | None:
    """Prefix that ends in front of a layer; ``None`` for layer 0. Arguments as in ``next_keys``."""
    if layer == 0 or (prefix is not None and prefix.layer == layer - 1):
        return prefix
    with Capture(view, [], prefix_of=layer - 1, stop_after=layer - 1, skip=prefix) as seen:
        view.model(**inputs, use_cache=False)
    return seen.prefix


def next_keys(
    view: ModelView, inputs: Mapping[str, Tensor], layer: int, prefix: Prefix | None
) -> tuple[Tensor, Prefix | None]:
    """Keys of a layer, and the prefix in front of it, from which the next call continues.

    Args:
        view: the model.
        inputs: keyword arguments of the model; the same token rows at every call.
        layer: at least that of an earlier call with these rows.
        prefix: the earlier call's prefix; ``None`` at the first.

    Returns:
        ``(keys [B, T, d_ff], prefix)``; the prefix is ``None`` in front of layer 0.
    """
    first_layer_run = 0 if prefix is None else prefix.layer + 1
    new_prefix_of = layer - 1 if layer > first_layer_run else None
    with Capture(view, [layer], stop_after="key", prefix_of=new_prefix_of, skip=prefix) as seen:
        view.model(**inputs, use_cache=False)
    return seen.key[layer], prefix if new_prefix_of is None else seen.prefix


def hidden_states_in(args: tuple, kwargs: dict) -> Tensor:
    """Hidden states among the arguments of a module's forward."""
    return args[0] if args else kwargs["hidden_states"]


def hidden_states_out(output) -> Tensor:
    """Hidden states among what a module's forward returns."""
    return output[0] if isinstance(output, (tuple, list)) else output


def _edited_input(edit, _module, args, kwargs):
    if args:
        return (edit(args[0]), *args[1:]), kwargs
    return args, {**kwargs, "hidden_states": edit(kwargs["hidden_states"])}


def _edited_module_output(edit, _module, args, kwargs, output):
    return edit(output, hidden_states_in(args, kwargs))


def _edited_block_output(edit, _module, _args, _kwargs, output):
    hidden = edit(hidden_states_out(output))
    return (hidden, *output[1:]) if isinstance(output, (tuple, list)) else hidden


def _skipped_forward(prefix: Prefix, layer: int, *args, **kwargs):
    # The last skipped block returns the stored states, those before it hand their input on.
    hidden = prefix.hidden if layer == prefix.layer else hidden_states_in(args, kwargs)
    return prefix.output(hidden)
