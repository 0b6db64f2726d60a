"""Keys of the edited layers, and the present value at z*'s layer."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..arch.capture import Capture, Prefix, next_keys, take
from ..arch.tokens import Batch, encode, subject_last_index
from ..arch.view import ModelView
from ..arch.widen import own_width
from ..edits.request import EditRequest

ROWS_PER_FORWARD = 128


@dataclass(frozen=True)
class KeyPrompts:
    """Every context of every request as one token batch, each row cut behind the subject (attention is
    causal).

    Attributes:
        batch: rows request-major, context-minor; the bare prompt is each request's first row. The last real
            token of a row is the subject's last.
        group_sizes: sizes of the context groups; their means are averaged with equal weight.
        n: number of requests.
    """

    batch: Batch
    group_sizes: list[int]
    n: int

    def average(self, values: Tensor) -> Tensor:
        """Mean of group means: [rows, d] -> [n, d]."""
        groups = values.view(self.n, sum(self.group_sizes), -1).split(self.group_sizes, dim=1)
        return torch.stack([group.mean(1) for group in groups]).mean(0)

    @property
    def bare(self) -> Tensor:
        """[n] rows of the bare prompts."""
        return torch.arange(self.n) * sum(self.group_sizes)

    @property
    def row_weights(self) -> Tensor:
        """[rows] weight of every row in the mean of its request."""
        sizes = torch.tensor(self.group_sizes)
        return (1 / (sizes * len(sizes))).repeat_interleave(sizes).repeat(self.n)


def key_prompts(tok, requests: list[EditRequest], contexts: list[list[str]], device) -> KeyPrompts:
    """Tokenise all contexts of all requests; ``contexts`` are groups, the first of them ``["{}"]``."""
    templates = [
        (context.replace("{}", request.prompt), request.subject)
        for request in requests
        for group in contexts
        for context in group
    ]
    batch = encode(tok, [template.format(subject) for template, subject in templates])
    lengths = torch.tensor([subject_last_index(tok, *pair) + 1 for pair in templates])
    width = int(lengths.max())
    mask = (torch.arange(width)[None] < lengths[:, None]).long()
    cut = Batch((batch.input_ids[:, :width] * mask).to(device), mask.to(device), lengths.to(device))
    return KeyPrompts(cut, [len(group) for group in contexts], len(requests))


@torch.no_grad()
def compute_keys(view: ModelView, prompts: KeyPrompts, layers: list[int]) -> dict[int, Tensor]:
    """layer -> K [d_ff, n], averaged over contexts, in the compute dtype; the weights do not change."""
    rows: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    for start in range(0, len(prompts.batch.lengths), ROWS_PER_FORWARD):
        part = prompts.batch.rows(start, start + ROWS_PER_FORWARD)
        with Capture(view, layers, stop_after="key") as seen:
            view.model(**part.inputs, use_cache=False)
        for layer in layers:
            rows[layer].append(_at_last(seen.key[layer], part)[:, : own_width(view)])
    return {
        layer: prompts.average(torch.cat(parts).to(view.compute_dtype)).T.contiguous()
        for layer, parts in rows.items()
    }


@dataclass(frozen=True)
class LayerReading:
    """What the solve of a layer needs, at the subject's last token, in the compute dtype.

    Attributes:
        keys: K [d_ff, n], averaged over contexts.
        z: [d_model, n] present value of z*'s layer on the bare prompts.
        ffn_out: [d_model, n] output of this layer's down projection on the bare prompts.
    """

    keys: Tensor
    z: Tensor
    ffn_out: Tensor


class LayerwiseKeys:
    """Keys and present values layer after layer, while the weights of the layers below are changed.

    The hidden states before the last layer that was read are kept, because the layers below it no longer
    change. A block thus runs once per row and state of the weights. The blocks between the edited layer and
    z*'s run only for the bare prompts.

    Args:
        view: the model. Between two calls weights may change from the last layer that was read upwards.
        prompts: rows.
        z_layer: the layer whose output z* is.
    """

    def __init__(self, view: ModelView, prompts: KeyPrompts, z_layer: int):
        self.view, self.prompts, self.z_layer = view, prompts, z_layer
        self._parts: list[tuple[Batch, Prefix | None]] = [
            (prompts.batch.rows(start, start + ROWS_PER_FORWARD), None)
            for start in range(0, len(prompts.batch.lengths), ROWS_PER_FORWARD)
        ]

    @torch.no_grad()
    def at(self, layer: int) -> LayerReading:
        """Read a layer; call it for the layers in ascending order."""
        keys, values, ffn_outs, bare = [], [], [], set(self.prompts.bare.tolist())
        for number, (part, prefix) in enumerate(self._parts):
            layer_keys, prefix = next_keys(self.view, part.inputs, layer, prefix)
            self._parts[number] = part, prefix
            keys.append(_at_last(layer_keys, part)[:, : own_width(self.view)])
            first = number * ROWS_PER_FORWARD
            bare_rows = torch.tensor([row for row in range(len(part.lengths)) if first + row in bare])
            if len(bare_rows):
                value, ffn_out = self._read_bare(part, prefix, bare_rows, layer)
                values.append(value)
                ffn_outs.append(ffn_out)
        dtype = self.view.compute_dtype
        return LayerReading(
            self.prompts.average(torch.cat(keys).to(dtype)).T.contiguous(),
            torch.cat(values).to(dtype).T.contiguous(),
            torch.cat(ffn_outs).to(dtype).T.contiguous(),
        )

    def _read_bare(
        self, part: Batch, prefix: Prefix | None, rows: Tensor, layer: int
    ) -> tuple[Tensor, Tensor]:
        batch, z_layer = part.select(rows), self.z_layer
        if prefix is not None:
            prefix = prefix.rows(rows)
            prefix = replace(prefix, hidden=prefix.hidden[:, : batch.input_ids.shape[1]])
        options = {"want": ("layer_out", "ffn_out"), "stop_after": z_layer, "skip": prefix}
        with Capture(self.view, [layer, z_layer], **options) as seen:
            self.view.model(**batch.inputs, use_cache=False)
        return _at_last(seen.layer_out[z_layer], batch), _at_last(seen.ffn_out[layer], batch)


def _at_last(values: Tensor, part: Batch) -> Tensor:
    return take(values, torch.arange(len(part.lengths)), part.last)
