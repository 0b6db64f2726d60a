"""The part of a forward pass that a change at the subject's last token can reach.

A vector added there to the output of one block changes nothing in the blocks below, and, attention being
causal, nothing at earlier tokens in the blocks above. Blocks below are therefore run once (``arch.Prefix``),
and the earlier tokens enter the blocks above as frozen attention keys and values. Exact but for the rounding
of matrix products of another shape.
"""

from dataclasses import dataclass, replace

import torch
from transformers import DynamicCache

from ..arch.capture import Capture, Prefix
from ..arch.states import take
from ..arch.tokens import Batch
from ..arch.view import ModelView

KeysValues = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Suffix:
    """R rows, each from its own first token on.

    Attributes:
        view: the model.
        ids, positions: [R, S] tokens and their positions in the whole row, right-padded.
        mask: [R, L + S], 1 at real tokens; the L columns of the past are left-padded.
        prefix: the blocks up to the one whose output is changed, with its clean output [R, S, d_model] at
            these tokens.
        past: per block above it keys and values [R, heads, L, d_head]; None where whole rows are run (L = 0).
    """

    view: ModelView
    ids: torch.Tensor
    positions: torch.Tensor
    mask: torch.Tensor
    prefix: Prefix
    past: list[KeysValues] | None

    def rows(self, index: torch.Tensor) -> "Suffix":
        """The rows of an index tensor."""

        def some(x):
            return x[index.to(x.device)]

        return replace(
            self,
            ids=some(self.ids),
            positions=some(self.positions),
            mask=some(self.mask),
            prefix=self.prefix.rows(index),
            past=self.past and [(some(k), some(v)) for k, v in self.past],
        )

    def run(self, add, layers: list[int] = ()) -> Capture:
        """Runs the blocks above the prefix on ``add(hidden)``, up to the final norm.

        Args:
            add: from the clean output [R, S, d_model] to the changed one.
            layers: blocks whose output is wanted too (``layer_out``).

        Returns:
            Capture with ``final_hidden`` and ``layer_out`` [R, S, d_model].
        """
        capture = Capture(
            self.view,
            layers,
            want=("layer_out", "final_hidden"),
            edit_layer_out={self.prefix.layer: add},
            stop_after="final",
            skip=self.prefix,
        )
        with capture as seen:
            if self.past is None:
                self.view.model(input_ids=self.ids, attention_mask=self.mask, use_cache=False)
            else:
                self.view.model(
                    input_ids=self.ids,
                    attention_mask=self.mask,
                    position_ids=self.positions,
                    past_key_values=self._cache(),
                    use_cache=True,
                )
        return seen

    def _cache(self) -> DynamicCache:
        cache = DynamicCache()
        # the model reads the length of the past off block 0, which is not run
        filler = self.prefix.hidden.new_zeros(1, 1, self.mask.shape[1] - self.ids.shape[1], 1)
        cache.update(filler, filler, 0)
        for number, (keys, values) in enumerate(self.past):
            cache.update(keys, values, self.prefix.layer + 1 + number)
        return cache


class CleanPass:
    """One forward of whole rows on the unedited weights, up to the final norm.

    Args:
        view: the model.
        batch: R rows.
        layer: the block whose output will be changed.
        readings: blocks whose ``key``, ``resid_mid`` and ``ffn_out`` are kept too (for attribution, and for
            the rome path).

    Attributes:
        seen: Capture with ``final_hidden`` and what ``readings`` asks for.
        prefix: the blocks up to ``layer``, with their output [R, T, d_model].
    """

    def __init__(self, view: ModelView, batch: Batch, layer: int, readings: list[int] = ()):
        self.view, self.batch = view, batch
        self._cache = DynamicCache()
        want = {"final_hidden"} | ({"key", "resid_mid", "ffn_out"} if readings else set())
        with (
            torch.no_grad(),
            Capture(view, readings, want=want, prefix_of=layer, stop_after="final") as self.seen,
        ):
            view.model(**batch.inputs, past_key_values=self._cache, use_cache=True)
        self.prefix = self.seen.prefix

    def suffix(self, start: torch.Tensor) -> tuple[Suffix, torch.Tensor]:
        """Rows from position ``start`` [R] on.

        Returns:
            (Suffix, position [R] of ``start`` in it). Where the model hands out no keys and values of every
            token, whole rows: then the position is ``start`` itself.
        """
        length, shape = int(start.max()), self.batch.input_ids.shape
        past = self._past(shape[1])
        if past is None or length == 0:
            return Suffix(
                self.view,
                self.batch.input_ids,
                torch.arange(shape[1], device=start.device).expand(shape),
                self.batch.attention_mask,
                self.prefix,
                None,
            ), start
        rows = torch.arange(shape[0], device=start.device)[:, None]
        width = int((self.batch.lengths - start).max())
        positions = start[:, None] + torch.arange(width, device=start.device)
        real = positions < self.batch.lengths[:, None]
        positions = positions.clamp_max(shape[1] - 1)
        # left-padded, so that the distance between two columns is the distance between their tokens (sliding
        # windows)
        before = start[:, None] - length + torch.arange(length, device=start.device)
        mask = torch.cat([(before >= 0).long(), real.long()], 1)
        before = before.clamp_min(0)

        def cut(states):  # [R, heads, T, d_head] -> [R, heads, L, d_head]
            return take(states.transpose(1, 2), rows, before).transpose(1, 2)

        prefix = replace(self.prefix, hidden=take(self.prefix.hidden, rows, positions))
        return Suffix(
            self.view,
            take(self.batch.input_ids, rows, positions),
            positions,
            mask,
            prefix,
            [(cut(k), cut(v)) for k, v in past],
        ), torch.zeros_like(start)

    def _past(self, width: int) -> list[KeysValues] | None:
        """Keys and values of the blocks above, or None where a model keeps other things than those of every
        token."""
        layers = getattr(self._cache, "layers", ())
        if len(layers) != self.view.n_layers:
            return None
        pairs = [(layer.keys, layer.values) for layer in layers[self.prefix.layer + 1 :]]
        whole = all(
            x is not None
            and x.dim() == 4
            and x.shape[0] == self.prefix.hidden.shape[0]
            and x.shape[2] == width
            for pair in pairs
            for x in pair
        )
        return pairs if whole else None
