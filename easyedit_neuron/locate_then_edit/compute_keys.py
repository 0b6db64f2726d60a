"""Keys of the edited layers and the present value at z*'s layer."""

from dataclasses import dataclass, replace

import torch

from ..arch.capture import Capture, Prefix
from ..arch.states import next_keys, take
from ..arch.tokens import Batch, encode, subject_last_index
from ..arch.view import ModelView
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

    def average(self, values: torch.Tensor) -> torch.Tensor:
        """Mean of group means: [rows, d] -> [n, d]."""
        groups = values.view(self.n, sum(self.group_sizes), -1).split(self.group_sizes, dim=1)
        return torch.stack([group.mean(1) for group in groups]).mean(0)

    @property
    def bare(self) -> torch.Tensor:
        """[n] the rows of the bare prompts."""
        return torch.arange(self.n) * sum(self.group_sizes)


def key_prompts(tok, requests: list[EditRequest], contexts: list[list[str]], device) -> KeyPrompts:
    """Tokenises all contexts of all requests; ``contexts`` are groups, the first of them ``["{}"]``."""
    flat = [context for group in contexts for context in group]
    templates = [(context.replace("{}", r.prompt), r.subject) for r in requests for context in flat]
    whole = encode(tok, [t.format(s) for t, s in templates])
    lengths = torch.tensor([subject_last_index(tok, t, s) + 1 for t, s in templates])
    width = int(lengths.max())
    mask = (torch.arange(width)[None] < lengths[:, None]).long()
    ids = whole.input_ids[:, :width] * mask
    return KeyPrompts(
        Batch(ids.to(device), mask.to(device), lengths.to(device)), [len(g) for g in contexts], len(requests)
    )


@torch.no_grad()
def keys_of(view: ModelView, prompts: KeyPrompts, layers: list[int]) -> dict[int, torch.Tensor]:
    """layer -> K [d_ff, n], averaged over contexts, in the compute dtype; all layers on the weights as they
    are."""
    found = {l: [] for l in layers}
    for start in range(0, len(prompts.batch.lengths), ROWS_PER_FORWARD):
        part = prompts.batch.rows(start, start + ROWS_PER_FORWARD)
        with Capture(view, layers, stop_after="key") as seen:
            view.model(**part.inputs, use_cache=False)
        for l in layers:
            found[l].append(_last(seen.key[l], part))
    return {
        l: prompts.average(torch.cat(parts).to(view.compute_dtype)).T.contiguous()
        for l, parts in found.items()
    }


@dataclass(frozen=True)
class LayerReading:
    """What a layer gives at the subject's last token, in the compute dtype.

    Attributes:
        keys: K [d_ff, n], averaged over contexts.
        value: z [d_model, n] of z*'s layer on the bare prompts.
        ffn_out: [d_model, n] output of this layer's down projection on the bare prompts.
    """

    keys: torch.Tensor
    value: torch.Tensor
    ffn_out: torch.Tensor


class LayerwiseKeys:
    """Keys and present values, layer after layer, while the weights of the layers gone by are changed.

    The hidden states in front of the layer last asked for are kept: what lies below was final when they were
        made. Each block of
    each row is run once per state of the weights, the blocks between the edited layer and z*'s for the bare
    prompts alone.

    Args:
        view: the model; its weights may change between two calls from the layer last asked for on.
        prompts: rows.
        z_layer: the layer where z* lives.
    """

    def __init__(self, view: ModelView, prompts: KeyPrompts, z_layer: int):
        self.view, self.prompts, self.z_layer = view, prompts, z_layer
        total = len(prompts.batch.lengths)
        self._parts = [
            (prompts.batch.rows(start, start + ROWS_PER_FORWARD), None)
            for start in range(0, total, ROWS_PER_FORWARD)
        ]

    @torch.no_grad()
    def at(self, layer: int) -> "LayerReading":
        """What the solve of ``layer`` needs; layers are asked for in ascending order."""
        keys, values, outputs, bare = [], [], [], set(self.prompts.bare.tolist())
        for number, (part, prefix) in enumerate(self._parts):
            found, prefix = next_keys(self.view, part.inputs, layer, prefix)
            self._parts[number] = part, prefix
            keys.append(_last(found, part))
            first = number * ROWS_PER_FORWARD
            rows = torch.tensor([row for row in range(len(part.lengths)) if first + row in bare])
            if len(rows):
                some, output = self._bare(part, prefix, rows, layer)
                values.append(some)
                outputs.append(output)
        dtype = self.view.compute_dtype
        return LayerReading(
            self.prompts.average(torch.cat(keys).to(dtype)).T.contiguous(),
            torch.cat(values).to(dtype).T.contiguous(),
            torch.cat(outputs).to(dtype).T.contiguous(),
        )

    def _bare(
        self, part: Batch, prefix: Prefix | None, rows: torch.Tensor, layer: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        some = part.select(rows)
        if prefix is not None:
            prefix = prefix.rows(rows)
            prefix = replace(prefix, hidden=prefix.hidden[:, : some.input_ids.shape[1]])
        with Capture(
            self.view,
            [layer, self.z_layer],
            want=("layer_out", "ffn_out"),
            stop_after=self.z_layer,
            skip=prefix,
        ) as seen:
            self.view.model(**some.inputs, use_cache=False)
        return _last(seen.layer_out[self.z_layer], some), _last(seen.ffn_out[layer], some)


def _last(values: torch.Tensor, part: Batch) -> torch.Tensor:
    return take(values, torch.arange(len(part.lengths)), part.last)
