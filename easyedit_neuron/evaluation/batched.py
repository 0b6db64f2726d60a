"""Many prompts in few forward passes: teacher-forced predictions, greedy exact match, perplexity."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..errors import RequestError
from .batching import accepted, by_length, evaluating, input_device, logits_at, right_pad, token_ids


@dataclass(frozen=True)
class Prediction:
    """Teacher forcing of one target: what the model puts at each target position, and the target itself.

    ``predicted[j]`` is the arg max over the vocabulary given the prompt and ``target[:j]``; both lists have
    one token id per target token.
    """

    predicted: list[int]
    target: list[int]

    @property
    def accuracy(self) -> float:
        """Share of target tokens predicted (EasyEdit's token accuracy); NaN when the target has no token of
        its own."""
        if not self.target:
            return math.nan
        return sum(p == t for p, t in zip(self.predicted, self.target)) / len(self.target)


def _pairs(tok, prompts: Sequence[str], targets: Sequence[str]):
    """Token ids of ``prompt + " " + target`` and the index of the first target token, as EasyEdit counts
    them."""
    prompts, targets = list(prompts), list(targets)
    if len(prompts) != len(targets):
        raise RequestError(f"{len(prompts)} prompts but {len(targets)} targets; give one target per prompt")
    rows = token_ids(tok, [prompt + " " + target for prompt, target in zip(prompts, targets)])
    starts = [len(ids) for ids in token_ids(tok, prompts)]
    for prompt, start in zip(prompts, starts):
        if start == 0:
            raise RequestError(
                f"prompt {prompt!r} has no tokens: the first target token has nothing to be predicted from"
            )
    return rows, starts


def predict_targets(
    model,
    tok,
    prompts: Sequence[str],
    targets: Sequence[str],
    batch_size: int = 64,
    group_sizes: Sequence[int] | None = None,
) -> list[Prediction]:
    """Teacher-forced prediction of each target after its prompt, tokenised as EasyEdit does.

    The text is ``prompt + " " + target`` with the tokenizer's special tokens; target tokens are those after
    the first ``len(tok(prompt))``. EasyEdit counts prompt tokens as those unlike the pad token; lengths give
    the same count wherever the pad token is not part of the target, and also where there is no pad token.

    Args:
        model, tok: a causal language model and its tokenizer (padding side and pad token are not used).
        prompts, targets: texts, one target per prompt.
        batch_size: prompts per forward pass.
        group_sizes: how many consecutive prompts EasyEdit would have put into one batch. EasyEdit pads such a
            batch on the left without position ids, so a row shorter than its group's longest begins at a
            later position. Rotary models do not notice; for learned absolute positions (GPT-2) the numbers
            differ, and the groups make them equal to EasyEdit's. ``None``: every text begins at position 0.

    Returns:
        One :class:`Prediction` per prompt, in order.

    Raises:
        RequestError: lengths differ, or a prompt without tokens.
    """
    rows, starts = _pairs(tok, prompts, targets)
    offsets = [0] * len(rows)
    if group_sizes is not None:
        if sum(group_sizes) != len(rows):
            raise RequestError(f"group_sizes add up to {sum(group_sizes)} but there are {len(rows)} prompts")
        first = 0
        for size in group_sizes:
            longest = max((len(row) for row in rows[first : first + size]), default=0)
            for i in range(first, first + size):
                offsets[i] = longest - len(rows[i])
            first += size
    found: list[Prediction | None] = [None] * len(rows)
    device = input_device(model)
    with evaluating(model):
        for batch in by_length([len(row) for row in rows], batch_size):
            first = min(starts[i] for i in batch) - 1
            stop = max(max(len(rows[i]) for i in batch) - 1, first + 1)
            inputs = right_pad([rows[i] for i in batch], device, [offsets[i] for i in batch])
            best = logits_at(model, inputs, first, stop).argmax(-1).tolist()
            for line, i in zip(best, batch):
                found[i] = Prediction(
                    line[starts[i] - 1 - first : len(rows[i]) - 1 - first], rows[i][starts[i] :]
                )
    return found


def token_accuracy(predictions: Sequence[Prediction]) -> list[float]:
    """Token accuracy of each prediction, in 0..1."""
    return [prediction.accuracy for prediction in predictions]


def exact_match_by_generation(
    model, tok, prompts: Sequence[str], targets: Sequence[str], batch_size: int = 64
) -> list[float]:
    """Does greedy decoding from the prompt write the target? 1.0 or 0.0 per prompt.

    As many tokens are generated as ``prompt + " " + target`` has after the prompt, with a key-value cache, in
    batches padded on the left. A match is equality of the token ids, or of the decoded texts without
    surrounding white space (the same words may have two tokenisations).

    Raises:
        RequestError: lengths differ, or a prompt without tokens.
    """
    rows, starts = _pairs(tok, prompts, targets)
    wanted = [row[start:] for row, start in zip(rows, starts)]
    heads = token_ids(tok, prompts)
    hits = [0.0] * len(rows)
    with evaluating(model):
        for batch in by_length([len(head) for head in heads], batch_size):
            made = _greedy(model, [heads[i] for i in batch], max(len(wanted[i]) for i in batch))
            for i, ids in zip(batch, made):
                ids = ids[: len(wanted[i])]
                same_text = tok.decode(ids, skip_special_tokens=True).strip() == targets[i].strip()
                hits[i] = float(ids == wanted[i] or same_text)
    return hits


def _greedy(model, rows: list[list[int]], steps: int) -> list[list[int]]:
    """``steps`` greedy tokens after each row. End-of-text tokens are kept like any other: a target is
    short."""
    if steps == 0:
        return [[] for _ in rows]
    device = input_device(model)
    width = max(len(row) for row in rows)
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows], device=device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device)
    positions = (mask.cumsum(1) - 1).clamp_min(0)
    cache, made = None, []
    for step in range(steps):
        inputs = accepted(
            model,
            {
                "input_ids": ids,
                "attention_mask": mask,
                "position_ids": positions,
                "past_key_values": cache,
                "logits_to_keep": 1,
            },
        )
        out = model(**inputs, use_cache=True)
        ids = out.logits[:, -1].argmax(-1, keepdim=True)
        made.append(ids)
        cache = out.past_key_values
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
        positions = positions[:, -1:] + 1
    return torch.cat(made, dim=1).tolist()


def perplexity(model, tok, texts: Sequence[str], batch_size: int = 32) -> float:
    """``exp`` of the mean negative log-likelihood (nats) over every predicted token of all texts.

    Weighted by tokens, not by texts; each text begins with the tokenizer's special tokens, and its first
    token is not predicted.

    Raises:
        RequestError: no text has a token to predict.
    """
    rows = [row for row in token_ids(tok, texts) if len(row) > 1]
    if not rows:
        raise RequestError("perplexity needs at least one text of two or more tokens")
    total, count, device = 0.0, 0, input_device(model)
    with evaluating(model):
        for batch in by_length([len(row) for row in rows], batch_size):
            inputs = right_pad([rows[i] for i in batch], device)
            logits = model(**accepted(model, inputs), use_cache=False).logits[:, :-1]
            labels = inputs["input_ids"][:, 1:].to(logits.device)
            real = inputs["attention_mask"][:, 1:].to(logits.device).bool()
            nll = torch.nn.functional.cross_entropy(logits[real].float(), labels[real], reduction="sum")
            total += float(nll)
            count += int(real.sum())
    return math.exp(total / count)
