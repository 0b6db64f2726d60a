"""Keys of the edited layers and the present value at z*'s layer."""

from dataclasses import dataclass

import torch

from ..arch.capture import Capture
from ..arch.view import ModelView
from ..requests import EditRequest
from ..tokens import Batch, encode, subject_last_index

ROWS_PER_FORWARD = 128


@dataclass(frozen=True)
class KeyPrompts:
    """Every context of every request as one token batch.

    Attributes:
        batch: rows request-major, context-minor; the bare prompt is each request's first row.
        lookup: [rows] index of the subject's last token.
        group_sizes: sizes of the context groups; their means are averaged with equal weight.
        n: number of requests.
    """

    batch: Batch
    lookup: torch.Tensor
    group_sizes: list[int]
    n: int

    def average(self, values: torch.Tensor) -> torch.Tensor:
        """Mean of group means: [rows, d] -> [n, d]."""
        groups = values.view(self.n, sum(self.group_sizes), -1).split(self.group_sizes, dim=1)
        return torch.stack([group.mean(1) for group in groups]).mean(0)

    def bare(self, values: torch.Tensor) -> torch.Tensor:
        """The bare prompts' rows: [rows, d] -> [n, d]."""
        return values.view(self.n, sum(self.group_sizes), -1)[:, 0]


def key_prompts(tok, requests: list[EditRequest], contexts: list[list[str]], device) -> KeyPrompts:
    """Tokenises all contexts of all requests; ``contexts`` are groups, the first of them ``["{}"]``."""
    flat = [context for group in contexts for context in group]
    templates = [(context.replace("{}", r.prompt), r.subject) for r in requests for context in flat]
    batch = encode(tok, [t.format(s) for t, s in templates], device)
    lookup = torch.tensor([subject_last_index(tok, t, s) for t, s in templates], device=device)
    return KeyPrompts(batch, lookup, [len(g) for g in contexts], len(requests))


@torch.no_grad()
def keys_and_values(view: ModelView, prompts: KeyPrompts, layers: list[int], z_layer: int | None = None):
    """Keys of ``layers`` (and values of ``z_layer``) on the weights as they are now.

    Returns:
        (layer -> K [d_ff, n] float32 averaged over contexts, z [d_model, n] float32 on the bare prompts or None).
    """
    seen_keys = {l: [] for l in layers}
    seen_z = []
    last = max(layers + ([] if z_layer is None else [z_layer]))
    total = len(prompts.lookup)
    for start in range(0, total, ROWS_PER_FORWARD):
        stop = min(start + ROWS_PER_FORWARD, total)
        part = prompts.batch.rows(start, stop)
        capture = Capture(view, sorted(set(layers) | ({z_layer} - {None})), want=("key", "layer_out"), stop_after=last)
        with capture as seen:
            view.model(**part.inputs, use_cache=False)

        def at_subject(values: torch.Tensor) -> torch.Tensor:
            rows = torch.arange(stop - start, device=values.device)
            return values[rows, prompts.lookup[start:stop].to(values.device)].float()

        for l in layers:
            seen_keys[l].append(at_subject(seen.key[l]))
        if z_layer is not None:
            seen_z.append(at_subject(seen.layer_out[z_layer]))
    keys = {l: prompts.average(torch.cat(parts)).T.contiguous() for l, parts in seen_keys.items()}
    return keys, prompts.bare(torch.cat(seen_z)).T.contiguous() if seen_z else None
