"""Reading (and replacing) hidden states of a forward pass. The only place in the package that sets hooks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from ..errors import ArchitectureError
from .view import ModelView

WANTS = ("key", "resid_mid", "ffn_out", "layer_out", "final_hidden")


class _StopForward(Exception):
    """Ends a forward pass once everything wanted has been seen; never leaves the ``with`` block."""


@dataclass(frozen=True)
class Prefix:
    """The lower blocks of a forward pass that has been run: what the last of them gave.

    Attributes:
        layer: number of that block.
        hidden: ``[B, T, d_model]``, its output, detached.
        tail: whatever else a block returns behind the hidden states, or ``None`` where it returns them alone.
    """

    layer: int
    hidden: Tensor
    tail: tuple | None

    def rows(self, index: Tensor) -> Prefix:
        """Of the rows of an index tensor."""
        return replace(self, hidden=self.hidden[index.to(self.hidden.device)])

    def last(self, *_args, **_kwargs):
        """In place of the last block's forward."""
        return self._bundle(self.hidden)

    def through(self, *args, **kwargs):
        """In place of an earlier block's forward: hands its input on."""
        return self._bundle(args[0] if args else kwargs["hidden_states"])

    def _bundle(self, hidden: Tensor):
        return hidden if self.tail is None else (hidden, *self.tail)


class Capture:
    """Context manager that keeps hidden states of the forward passes run inside it (the latest pass wins).

    Hooks exist only inside the ``with`` block and are gone after an exception too. Works under grad and
    ``no_grad``; captured tensors are the model's own (not copied, not detached).

    Args:
        view: the model.
        layers: layers whose ``key``, ``resid_mid``, ``ffn_out``, ``layer_out`` are kept.
        want: any of

            - ``key``: input of the down projection, i.e. the neuron activations q; ``[B, T, d_ff]`` per
              layer.
            - ``resid_mid``: residual stream after attention, before the FFN is added; ``[B, T, d_model]`` per
              layer. In a parallel block (GPT-J, GPT-NeoX) it is input + attention, although the FFN there
              does not read it.
            - ``ffn_out``: output of the down projection, before any post-FFN norm; ``[B, T, d_model]`` per
              layer.
            - ``layer_out``: output of the block, as the next block gets it; ``[B, T, d_model]`` per layer.
            - ``final_hidden``: input of the final norm; ``[B, T, d_model]``.
        stop_after: end the forward after this layer, or after the last layer with ``"final"`` (before the
            final norm, so that no logits are computed), or with ``"key"``, where nothing else is wanted, in
            front of the down projection of the last of ``layers``. The call of the model then does not
            return: nothing after it in the ``with`` block runs.
        edit_layer_out: ``{layer: f}``, replaces the output of a block by ``f(output [B, T, d_model])``.
        edit_key: ``{layer: f}``, replaces the input of a down projection by ``f(input [B, T, d_ff])``; a
            captured ``key`` is the edited one.
        edit_modules: ``(layer, module name, f)``, replaces the output of any module of a block by ``f(output,
            input)``; several of one module act one after the other. Of a down projection the input is the
            ``key``, edited or not, and a captured ``ffn_out`` is the edited output.
        prefix_of: a block whose output, before any edit, is kept as ``prefix``.
        skip: a ``Prefix`` of an earlier pass over the same batch: its blocks are not run again, the last of
            them hands on the hidden states that it gave then. Exact; what is edited or captured must lie at
            its end or behind it.

    Attributes:
        key, resid_mid, ffn_out, layer_out: layer -> tensor, what ``want`` asked for.
        final_hidden: tensor or None.
        prefix: ``Prefix`` up to ``prefix_of``, or None.

    Raises:
        ArchitectureError: an unknown ``want``, a layer that does not exist or lies behind ``stop_after``.

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
        self.edits = dict(edit_layer_out or {})
        self.key_edits = dict(edit_key or {})
        self.module_edits = list(edit_modules)
        self.prefix_of = prefix_of
        self.skip = skip
        self._check()
        self.key: dict[int, Tensor] = {}
        self.resid_mid: dict[int, Tensor] = {}
        self.ffn_out: dict[int, Tensor] = {}
        self.layer_out: dict[int, Tensor] = {}
        self.final_hidden: Tensor | None = None
        self.prefix: Prefix | None = None
        self._inputs: dict[int, Tensor] = {}
        self._forwards: list[tuple] = []
        self._handles: list = []
        self._stop = _StopForward()

    def _check(self) -> None:
        unknown = self.want - set(WANTS)
        if unknown:
            raise ArchitectureError(f"want: unknown {sorted(unknown)}; known: {', '.join(WANTS)}")
        ends = [] if self.prefix_of is None else [self.prefix_of]
        inside = [*self.key_edits, *(layer for layer, _, _ in self.module_edits)]
        for layer in [*self.layers, *self.edits, *inside, *ends]:
            self.view.layer(layer)
        if self.skip is not None:
            inner = [
                l for l in self.layers if l <= self.skip.layer and self.want - {"layer_out", "final_hidden"}
            ]
            inner += [l for l in inside if l <= self.skip.layer]
            early = inner + [l for l in [*self.layers, *self.edits, *ends] if l < self.skip.layer]
            if early:
                raise ArchitectureError(
                    f"skip: layer {early[0]} is not run, so nothing inside it can be captured or edited"
                )
        if self.stop_after is None or self.stop_after == "final":
            return
        if self.stop_after == "key":
            outputs = [
                l
                for l in [*self.edits, *inside[len(self.key_edits) :], *ends]
                if l >= max(self.layers, default=-1)
            ]
            if self.want != {"key"} or not self.layers or outputs:
                raise ArchitectureError(
                    "stop_after='key' ends the forward in front of the down projection of the last layer: "
                    "only keys can be wanted, and no output of that layer"
                )
            return
        self.view.layer(self.stop_after)
        late = [layer for layer in [*self.layers, *self.edits, *inside, *ends] if layer > self.stop_after]
        if late or "final_hidden" in self.want:
            what = f"layer {late[0]}" if late else "final_hidden"
            raise ArchitectureError(f"stop_after={self.stop_after} ends the forward before {what} is reached")

    # ---- hooks
    # ---------------------------------------------------------------------------------------------------

    def __enter__(self) -> Capture:
        try:
            self._set_hooks()
        except BaseException:
            self._remove_hooks()
            raise
        return self

    def __exit__(self, kind, error, trace) -> bool:
        self._remove_hooks()
        if error is not self._stop:
            return False
        error.__traceback__ = None  # its frames hold what the forward held, and through this object themselves: only gc would free it
        return True

    def _remove_hooks(self) -> None:
        for module, original in self._forwards:
            if original is None:
                del module.forward
            else:
                module.forward = original
        self._forwards.clear()
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._inputs.clear()

    def _before(self, module, keep: Callable[[Tensor], None]) -> None:
        def hook(_module, args, kwargs):
            keep(args[0] if args else kwargs["hidden_states"])

        self._handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))

    def _after(self, module, keep: Callable[[Tensor], None]) -> None:
        self._handles.append(module.register_forward_hook(lambda _module, _args, out: keep(_tensor_of(out))))

    def _set_hooks(self) -> None:
        if self.skip is not None:
            self._skip_blocks()
        for layer, edit in self.key_edits.items():
            self._handles.append(
                self.view.down_proj(layer).register_forward_pre_hook(_input_editor(edit), with_kwargs=True)
            )
        for _, name, edit in self.module_edits:
            self._handles.append(
                self.view.model.get_submodule(name).register_forward_hook(
                    _output_editor(edit), with_kwargs=True
                )
            )
        for layer in self.layers:
            if "key" in self.want:
                self._before(self.view.down_proj(layer), _setter(self.key, layer))
            if "ffn_out" in self.want:
                self._after(self.view.down_proj(layer), _setter(self.ffn_out, layer))
            if "resid_mid" in self.want:
                self._capture_resid_mid(layer)
        # layer outputs last and in this order: the prefix is unedited, a captured output edited, and stopping
        # comes after all
        if self.prefix_of is not None:
            self._handles.append(self.view.layer(self.prefix_of).register_forward_hook(self._keep_prefix))
        for layer, edit in self.edits.items():
            self._handles.append(self.view.layer(layer).register_forward_hook(self._editor(edit)))
        if "layer_out" in self.want:
            for layer in self.layers:
                self._after(self.view.layer(layer), _setter(self.layer_out, layer))
        if "final_hidden" in self.want:
            self._before(self.view.final_norm, lambda x: setattr(self, "final_hidden", x))
        if self.stop_after == "final":
            self._before(self.view.final_norm, self._halt)
        elif self.stop_after == "key":
            self._before(self.view.down_proj(max(self.layers)), self._halt)
        elif self.stop_after is not None:
            self._after(self.view.layer(self.stop_after), self._halt)

    def _capture_resid_mid(self, layer: int) -> None:
        if not self.view.arch.parallel_residual:
            self._before(self.view.pre_ffn_norm(layer), _setter(self.resid_mid, layer))
            return
        self._before(self.view.layer(layer), _setter(self._inputs, layer))

        def add_branch(branch: Tensor) -> None:
            self.resid_mid[layer] = self._inputs.pop(layer) + branch

        self._after(self.view.attn_branch(layer), add_branch)

    def _editor(self, edit):
        def hook(_module, _args, output):
            new = edit(_tensor_of(output))
            return (new, *output[1:]) if isinstance(output, (tuple, list)) else new

        return hook

    def _keep_prefix(self, _module, _args, output) -> None:
        tail = tuple(output[1:]) if isinstance(output, (tuple, list)) else None
        self.prefix = Prefix(self.prefix_of, _tensor_of(output).detach(), tail)

    def _skip_blocks(self) -> None:
        # an instance attribute shadows the method and leaves hooks at work; accelerate may have set one
        # already
        for layer in range(self.skip.layer + 1):
            module = self.view.layer(layer)
            self._forwards.append((module, module.__dict__.get("forward")))
            module.forward = self.skip.last if layer == self.skip.layer else self.skip.through

    def _halt(self, _tensor: Tensor) -> None:
        raise self._stop


def _setter(store: dict[int, Tensor], layer: int) -> Callable[[Tensor], None]:
    def keep(tensor: Tensor) -> None:
        store[layer] = tensor

    return keep


def _input_editor(edit):
    def hook(_module, args, kwargs):
        if args:
            return (edit(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": edit(kwargs["hidden_states"])}

    return hook


def _output_editor(edit):
    def hook(_module, args, kwargs, output):
        return edit(output, args[0] if args else kwargs["hidden_states"])

    return hook


def _tensor_of(output) -> Tensor:
    return output[0] if isinstance(output, (tuple, list)) else output
