"""Many prompts in few forward passes: teacher-forced predictions, greedy exact match, perplexity."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..arch.tokens import text_ids
from ..arch.vocabulary import check_lengths
from ..errors import RequestError
from .batching import accepted, by_length, evaluating, input_device, logits_at, right_pad, tokenize_pairs
from .decoding import greedy_tokens


@dataclass(frozen=True)
class Prediction:
    """Teacher forcing of one target: per token j, the arg max given the prompt and ``target[:j]``."""

    predicted: list[int]
    target: list[int]

    @property
    def accuracy(self) -> float:
        """Share of target tokens predicted (EasyEdit's token accuracy), 0..1; NaN without target tokens."""
        if not self.target:
            return math.nan
        return sum(p == t for p, t in zip(self.predicted, self.target)) / len(self.target)


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
    the first ``len(tok(prompt))``. EasyEdit counts prompt tokens as those unlike the pad token. Lengths give
    the same count wherever the pad token is not part of the target, and need no pad token.

    ``group_sizes``: how many consecutive prompts EasyEdit would have put into one batch. It pads such a batch
    on the left without position ids, so a row shorter than its group's longest begins at a later position.
    For learned absolute positions (GPT-2) the numbers differ, and the groups make them equal to EasyEdit's.
    ``None``: every text begins at position 0. ``RequestError`` where lengths differ, or a prompt has no
    tokens.
    """
    pairs = tokenize_pairs(tok, prompts, targets)
    check_lengths(model, [pair.ids for pair in pairs])
    lengths = [len(pair.ids) for pair in pairs]
    offsets = [0] * len(pairs) if group_sizes is None else _left_padding(lengths, group_sizes)
    predictions: dict[int, Prediction] = {}
    device = input_device(model)
    with evaluating(model):
        for batch in by_length(lengths, batch_size):
            inputs = right_pad([pairs[i].ids for i in batch], device, [offsets[i] for i in batch])
            # The logits at position p predict the token at p + 1.
            asked = [(row, p - 1) for row, i in enumerate(batch) for p in range(pairs[i].start, lengths[i])]
            rows, places = zip(*asked) if asked else ((), ())
            best = iter(logits_at(model, inputs, rows, places).argmax(-1).tolist())
            for i in batch:
                target = pairs[i].target_ids
                predictions[i] = Prediction([next(best) for _ in target], target)
    return [predictions[i] for i in range(len(pairs))]


def _left_padding(lengths: Sequence[int], group_sizes: Sequence[int]) -> list[int]:
    if sum(group_sizes) != len(lengths):
        raise RequestError(f"group_sizes add up to {sum(group_sizes)} but there are {len(lengths)} prompts")
    padding: list[int] = []
    for size in group_sizes:
        group = lengths[len(padding) : len(padding) + size]
        padding += [max(group) - length for length in group]
    return padding


def pair_accuracies(model, tok, pairs: Sequence[tuple[str, str]], batch_size: int = 64) -> list[float]:
    """Teacher-forced token accuracy of each answer after its prompt."""
    if not pairs:
        return []
    prompts, answers = zip(*pairs)
    return token_accuracy(predict_targets(model, tok, prompts, answers, batch_size))


def token_accuracy(predictions: Sequence[Prediction]) -> list[float]:
    return [prediction.accuracy for prediction in predictions]


def exact_match_by_generation(
    model, tok, prompts: Sequence[str], targets: Sequence[str], batch_size: int = 64
) -> list[float]:
    """Does greedy decoding from the prompt write the target? 1.0 or 0.0 per prompt.

    As many tokens are generated as the target has. A match is equality of the token ids, or of the decoded
    texts without surrounding white space (the same words may have two tokenisations).
    """
    pairs = tokenize_pairs(tok, prompts, targets)
    matches = [0.0] * len(pairs)
    with evaluating(model):
        for batch in by_length([pair.start for pair in pairs], batch_size):
            steps = max(len(pairs[i].target_ids) for i in batch)
            for i, ids in zip(batch, greedy_tokens(model, [pairs[i].prompt_ids for i in batch], steps)):
                ids = ids[: len(pairs[i].target_ids)]
                same_text = tok.decode(ids, skip_special_tokens=True).strip() == targets[i].strip()
                matches[i] = float(ids == pairs[i].target_ids or same_text)
    return matches


def perplexity(model, tok, texts: Sequence[str], batch_size: int = 32) -> float:
    """``exp`` of the mean negative log-likelihood (nats) over every predicted token of all texts.

    Weighted by tokens, not by texts; each text begins with the tokenizer's special tokens, and its first
    token is not predicted.
    """
    rows = [row for row in text_ids(tok, texts) if len(row) > 1]
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
