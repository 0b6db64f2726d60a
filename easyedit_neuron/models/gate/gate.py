"""The keys and changes that a gate keeps, and the hidden states that it changes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ...arch.capture import Capture
from ...arch.chat import prompt_tokenizer
from ...arch.view import ModelView, eval_mode
from ...edits.request import EditRequest, Fact, prepare
from ...locate_then_edit.compute_keys import key_prompts
from ...locate_then_edit.compute_z import compute_z
from ...locate_then_edit.context_templates import contexts_of
from .gate_hparams import GateHyperParams

SINK_COSINE = 0.9


class Gate:
    """n edits of a model that changes at the tokens that look like one of their subjects.

    With k the key of a token at ``key_layer`` and k_j the stored one nearest to it, the output of the layer
    that is written gets ``z*_j - z_j`` where ``cos(k, k_j) > threshold``. Attention sinks (first tokens look
    alike in every prompt) are left alone: those with ``cos(k, sink) > .9``.

    Args:
        view: the model, whose forward passes the gate changes from now on.
        tok: tokenizer.
        hparams: layers and threshold.

    Attributes:
        keys: k_j of unit length, ``[n, d_ff]``.
        changes: z*_j - z_j, ``[n, d_model]``.
        facts: of the edits.
        sink: mean key of first tokens, ``[d_ff]``; None before the first edit.
    """

    def __init__(self, view: ModelView, tok, hparams: GateHyperParams):
        self.view, self.tok, self.hparams = view, prompt_tokenizer(tok, hparams), hparams
        (self.layer,) = hparams.layers
        view.check_layer(self.layer)
        empty = torch.empty(0, dtype=view.compute_dtype, device=view.device_of(self.layer))
        self.keys, self.changes = empty.new_empty(0, view.d_ff), empty.new_empty(0, view.d_model)
        self.facts: list[Fact] = []
        self.sink: Tensor | None = None
        self._answers = True
        self._passes = Capture(view, [hparams.key_layer], edit_layer_out={self.layer: self._changed})
        self._passes.__enter__()

    def remove(self) -> None:
        """Leave the model's forward passes alone from now on."""
        self._passes.__exit__(None, None, None)

    def add(self, requests: list[dict[str, Any]]) -> None:
        """Make edits; one of a fact takes the place of an earlier one. z* is that of the untouched model.

        Raises:
            NeuronEditError: bad requests; nothing is kept then.
        """
        prepared, view = prepare(requests), self.view
        with self._silent(), eval_mode(view.model):
            contexts = self._contexts
            flat = [context for group in contexts for context in group]
            targets = compute_z(view, self.tok, prepared, self.hparams, flat, self.layer).targets
            keys, sink = self._read(prepared, contexts)
        changes = torch.stack([target.value - target.initial for target in targets])
        facts = [request.fact for request in prepared]
        replaced = {fact[:2] for fact in facts}
        remaining = [number for number, fact in enumerate(self.facts) if fact[:2] not in replaced]
        self.keys = torch.cat([self.keys[remaining], keys.to(self.keys)])
        self.changes = torch.cat([self.changes[remaining], changes.to(self.changes)])
        self.facts = [*(self.facts[number] for number in remaining), *facts]
        self.sink = sink

    @cached_property
    def _contexts(self) -> list[list[str]]:
        """Written by the untouched model, the same for every batch of edits."""
        return contexts_of(self.view.model, self.tok, self.hparams)

    def state(self) -> dict[str, Any]:
        """What ``load`` needs."""
        facts = [list(fact) for fact in self.facts]
        return {"keys": self.keys, "changes": self.changes, "facts": facts, "sink": self.sink}

    def load(self, state: dict[str, Any]) -> None:
        """Keep what a ``state`` holds, and nothing else."""
        sink = state["sink"]
        self.keys, self.changes = state["keys"].to(self.keys), state["changes"].to(self.changes)
        self.facts = [tuple(fact) for fact in state["facts"]]
        self.sink = None if sink is None else sink.to(self.keys)

    @contextmanager
    def _silent(self) -> Iterator[None]:
        """The block in which the model is as it was before its first edit."""
        self._answers = False
        try:
            yield
        finally:
            self._answers = True

    def _changed(self, output: Tensor) -> Tensor:
        if not self._answers or not self.facts:
            return output
        keys = self._passes.key[self.hparams.key_layer].to(self.keys)
        near, nearest = (functional.normalize(keys, dim=-1) @ self.keys.T).max(-1)
        opens = (near > self.hparams.threshold) & ~self._is_sink(keys, self.sink)
        return output + (self.changes[nearest] * opens[..., None]).to(output)

    def _is_sink(self, keys: Tensor, sink: Tensor) -> Tensor:
        return torch.cosine_similarity(keys, sink.to(keys), dim=-1) > SINK_COSINE

    @torch.no_grad()
    def _read(self, requests: list[EditRequest], contexts: list[list[str]]) -> tuple[Tensor, Tensor]:
        """Keys of the requests [n, d_ff], and that of sinks, which the first requests give.

        A key is that of the bare prompt; where it is a sink, that of the first context in which it is none.
        """
        layer, view = self.hparams.key_layer, self.view
        prompts = key_prompts(self.tok, requests, contexts, view.input_device)
        with Capture(view, [layer], stop_after="key") as seen:
            view.model(**prompts.batch.inputs, use_cache=False)
        rows = torch.arange(len(prompts.batch.lengths))
        keys = seen.key[layer][rows, prompts.batch.lengths.cpu() - 1].to(view.compute_dtype)
        sink = seen.key[layer][:, 0].to(view.compute_dtype).mean(0) if self.sink is None else self.sink
        usable = ~self._is_sink(keys, sink).unflatten(0, (len(requests), -1))
        first = usable.int().argmax(1)  # the bare prompt where there is nothing else
        chosen = keys.unflatten(0, (len(requests), -1))[torch.arange(len(requests)), first.cpu()]
        return functional.normalize(chosen, dim=-1), sink
