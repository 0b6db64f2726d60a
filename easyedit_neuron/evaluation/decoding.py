"""Tokens that a model writes behind many prompts at once, with a cache and left padding."""

from collections.abc import Callable, Sequence

import torch

from ..arch.tokens import left_pad
from .batching import accepted, input_device


def greedy_tokens(
    model, rows: list[list[int]], steps: int, is_settled: Callable[[int, list[int]], bool] = lambda *_: False
) -> list[list[int]]:
    """The likeliest tokens after each row, see ``written_tokens``."""
    return written_tokens(model, rows, steps, lambda logits, _: logits.argmax(-1, keepdim=True), is_settled)


def top_k_tokens(
    model, rows: list[list[int]], steps: int, top_k: int, generators: Sequence[torch.Generator | None]
) -> list[list[int]]:
    """Tokens drawn from the ``top_k`` likeliest ones, see ``written_tokens``; row i with ``generators[i]``
    (None: torch's global one), so that what is drawn for it does not depend on the other rows."""

    def draw(logits: torch.Tensor, running: Sequence[int]) -> torch.Tensor:
        probabilities = logits.softmax(-1)
        best = probabilities.topk(min(top_k, probabilities.shape[-1]), dim=1).indices
        weights = probabilities.gather(1, best)
        weights = weights / weights.sum(1, keepdim=True)
        drawn = []
        for place, row in enumerate(running):
            generator, own = generators[row], weights[place : place + 1]
            own = own if generator is None else own.to(generator.device)
            drawn.append(torch.multinomial(own, 1, generator=generator).to(best.device))
        return best.gather(1, torch.cat(drawn))

    return written_tokens(model, rows, steps, draw)


def written_tokens(
    model,
    rows: list[list[int]],
    steps: int,
    draw: Callable[[torch.Tensor, Sequence[int]], torch.Tensor],
    is_settled: Callable[[int, list[int]], bool] = lambda *_: False,
) -> list[list[int]]:
    """``steps`` tokens after each row of token ids; end-of-text ends no row.

    Args:
        draw: the next tokens [n, 1] from the logits [n, V] of rows with these numbers.
        is_settled: whether a row, by its number and its tokens so far, needs no more; it leaves the batch.
    """
    written: list[list[int]] = [[] for _ in rows]
    if steps == 0:
        return written
    ids, mask = left_pad(rows, input_device(model))
    positions = (mask.cumsum(1) - 1).clamp_min(0)
    cache, running = None, list(range(len(rows)))
    for _ in range(steps):
        inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
        inputs |= {"past_key_values": cache, "logits_to_keep": 1}
        out = model(**accepted(model, inputs), use_cache=True)
        ids = draw(out.logits[:, -1], running).to(ids.device)
        for row, (token,) in zip(running, ids.tolist()):
            written[row].append(token)
        # The next step sees one token more, one position further.
        cache = out.past_key_values
        mask = torch.cat([mask, mask.new_ones(len(running), 1)], dim=1)
        positions = positions[:, -1:] + 1
        unsettled = [place for place, row in enumerate(running) if not is_settled(row, written[row])]
        if not unsettled:
            break
        if len(unsettled) < len(running) and _loses_rows(cache):
            chosen = torch.tensor(unsettled, device=ids.device)
            cache.batch_select_indices(chosen)
            ids, mask, positions = ids[chosen], mask[chosen], positions[chosen]
            running = [running[place] for place in unsettled]
    return written


def _loses_rows(cache) -> bool:
    """Whether rows can be taken out of a cache; one with states of linear attention keeps them."""
    layers = getattr(cache, "layers", ())
    return bool(layers) and all(hasattr(layer, "batch_select_indices") for layer in layers)
