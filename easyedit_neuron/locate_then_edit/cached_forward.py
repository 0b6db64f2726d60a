"""The part of a forward pass that a change at the subject's last token can reach.

A vector added there to the output of one block changes nothing in the blocks below and, attention being
causal, nothing at earlier tokens in the blocks above. The blocks below are therefore run once
(``arch.Prefix``), and the earlier tokens enter the blocks above as cached attention keys and values. This is
exact except for the rounding of matrix products of another shape.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import DynamicCache

from ..arch.capture import Capture, Prefix, take
from ..arch.tokens import Batch
from ..arch.view import ModelView

KeysValues = tuple[Tensor, Tensor]
STATEFUL = {"linear_attention", "mamba", "conv"}
"""Types of blocks, as a config's ``layer_types`` names them, that cache a state and not keys and values."""


@dataclass(frozen=True)
class Suffix:
    """R rows, each from its own first token on.

    Attributes:
        view: the model.
        ids, positions: [R, S] tokens and their positions in the whole row, right-padded.
        mask: [R, L + S], 1 at real tokens; the L columns of the past are left-padded.
        prefix: the blocks up to the one whose output is changed, with its clean output [R, S, d_model] at
            these tokens.
        past: keys and values [R, heads, L, d_head] of every block above; None where whole rows are run (L =
            0).
    """

    view: ModelView
    ids: Tensor
    positions: Tensor
    mask: Tensor
    prefix: Prefix
    past: list[KeysValues] | None

    def rows(self, index: Tensor) -> Suffix:
        """The rows of an index tensor."""

        def select(values: Tensor) -> Tensor:
            return values[index.to(values.device)]

        return replace(
            self,
            ids=select(self.ids),
            positions=select(self.positions),
            mask=select(self.mask),
            prefix=self.prefix.rows(index),
            past=self.past and [(select(keys), select(values)) for keys, values in self.past],
        )

    def run(self, change: Callable[[Tensor], Tensor], layers: Sequence[int] = ()) -> Capture:
        """Run the blocks above the prefix on its changed output, up to the final norm.

        Args:
            change: from the clean output [R, S, d_model] to the changed one.
            layers: blocks whose output is captured too (``layer_out``).

        Returns:
            Capture with ``final_hidden`` and ``layer_out`` [R, S, d_model].
        """
        inputs = {"input_ids": self.ids, "attention_mask": self.mask, "use_cache": False}
        if self.past is not None:
            inputs |= {"position_ids": self.positions, "past_key_values": self._cache(), "use_cache": True}
        with Capture(
            self.view,
            layers,
            want=("layer_out", "final_hidden"),
            edit_layer_out={self.prefix.layer: change},
            stop_after="final",
            skip=self.prefix,
        ) as seen:
            self.view.model(**inputs)
        return seen

    def _cache(self) -> DynamicCache:
        cache = DynamicCache()
        # The model reads the length of the past off block 0, which is not run.
        filler = self.prefix.hidden.new_zeros(1, 1, self.mask.shape[1] - self.ids.shape[1], 1)
        cache.update(filler, filler, 0)
        for number, (keys, values) in enumerate(self.past):
            cache.update(keys, values, self.prefix.layer + 1 + number)
        return cache


class CleanPass:
    """One forward pass of whole rows on the unedited weights, up to the final norm.

    Args:
        view: the model.
        batch: R rows.
        layer: the block whose output will be changed.
        read_layers: blocks whose ``key``, ``resid_mid`` and ``ffn_out`` are captured too.

    Attributes:
        seen: Capture with ``final_hidden`` and what ``read_layers`` asks for.
        prefix: the blocks up to ``layer``, with their output [R, T, d_model].
    """

    def __init__(self, view: ModelView, batch: Batch, layer: int, read_layers: Sequence[int] = ()):
        self.view, self.batch = view, batch
        # A model with linear attention (Qwen 3.5) stores states, from which no token's can be cut out.
        types = set(getattr(view.config, "layer_types", None) or ())
        self._cache = None if types & STATEFUL else DynamicCache()
        want = {"final_hidden", "key", "resid_mid", "ffn_out"} if read_layers else {"final_hidden"}
        capture = Capture(view, read_layers, want=want, prefix_of=layer, stop_after="final")
        with torch.no_grad(), capture as self.seen:
            view.model(**batch.inputs, past_key_values=self._cache, use_cache=self._cache is not None)
        self.prefix = self.seen.prefix

    def suffix(self, start: Tensor) -> tuple[Suffix, Tensor]:
        """Rows from position ``start`` [R] on.

        Returns:
            (Suffix, position [R] of ``start`` in it). Where the model does not hand out the keys and values
            of every token these are whole rows, and the position is ``start`` itself.
        """
        ids, lengths, device = self.batch.input_ids, self.batch.lengths, start.device
        row_count, row_width = ids.shape
        past_width = int(start.max())
        past = self._past(row_width)
        if past is None or past_width == 0:
            positions = torch.arange(row_width, device=device).expand(ids.shape)
            return Suffix(self.view, ids, positions, self.batch.attention_mask, self.prefix, None), start

        # Tokens of the suffixes: from start to the end of the longest of them
        rows = torch.arange(row_count, device=device)[:, None]
        width = int((lengths - start).max())
        positions = start[:, None] + torch.arange(width, device=device)
        is_real = positions < lengths[:, None]
        positions = positions.clamp_max(row_width - 1)
        # The past is left-padded, so that the distance between two columns is that of their tokens (sliding
        # windows).
        past_positions = start[:, None] - past_width + torch.arange(past_width, device=device)
        mask = torch.cat([(past_positions >= 0).long(), is_real.long()], 1)
        past_positions = past_positions.clamp_min(0)

        def cut(states: Tensor) -> Tensor:  # [R, heads, T, d_head] -> [R, heads, L, d_head]
            return take(states.transpose(1, 2), rows, past_positions).transpose(1, 2)

        prefix = replace(self.prefix, hidden=take(self.prefix.hidden, rows, positions))
        cut_past = [(cut(keys), cut(values)) for keys, values in past]
        suffix = Suffix(self.view, take(ids, rows, positions), positions, mask, prefix, cut_past)
        return suffix, torch.zeros_like(start)

    def _past(self, width: int) -> list[KeysValues] | None:
        """Keys and values of the blocks above, or None where a model caches something else than those of
        every token."""
        layers = getattr(self._cache, "layers", ())
        if len(layers) != self.view.n_layers:
            return None
        pairs = [(layer.keys, layer.values) for layer in layers[self.prefix.layer + 1 :]]
        complete = all(
            states is not None
            and states.dim() == 4
            and states.shape[0] == self.prefix.hidden.shape[0]
            and states.shape[2] == width
            for pair in pairs
            for states in pair
        )
        return pairs if complete else None
