"""Tokenisation and batches of the evaluation: own padding, explicit masks and positions, eval mode.

The tokenizer is only ever called without padding: its padding side and its pad token (it may have none) are
neither used nor changed.
"""

import contextlib
import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from ..arch.tokens import pad, pair_ids, text_ids
from ..arch.view import eval_mode
from ..errors import RequestError


@dataclass(frozen=True)
class TokenizedPair:
    """Ids of a prompt alone, and of ``prompt + " " + target`` (in a chat, of both turns). The target begins
    at ``start``."""

    prompt_ids: list[int]
    ids: list[int]

    @property
    def start(self) -> int:
        return len(self.prompt_ids)

    @property
    def target_ids(self) -> list[int]:
        """Ids of the target's own tokens; may be empty."""
        return self.ids[self.start :]


def tokenize_pairs(tok, prompts: Sequence[str], targets: Sequence[str]) -> list[TokenizedPair]:
    """Tokenise each prompt with its target; ``RequestError`` for other lengths, or an empty prompt."""
    prompts, targets = list(prompts), list(targets)
    if len(prompts) != len(targets):
        raise RequestError(f"{len(prompts)} prompts but {len(targets)} targets; give one target per prompt")
    rows = text_ids(tok, prompts), pair_ids(tok, prompts, targets)
    pairs = [TokenizedPair(*ids) for ids in zip(*rows)]
    for prompt, pair in zip(prompts, pairs):
        if pair.start == 0:
            raise RequestError(f"prompt {prompt!r} has no tokens, so nothing predicts the first target token")
    return pairs


def by_length(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Row indices in batches of similar length, so that little is computed on padding."""
    if batch_size < 1:
        raise RequestError(f"batch_size is {batch_size}; it must be at least 1")
    order = sorted(range(len(lengths)), key=lambda row: (lengths[row], row))
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def right_pad(rows: Sequence[Sequence[int]], device, offsets: Sequence[int] | None = None) -> dict:
    """Pad B rows of token ids on the right; ``offsets`` are the positions of their first tokens (default 0).

    ``input_ids``, ``attention_mask``, ``position_ids``, each int64 ``[B, T]``; padding is token 0, mask 0.
    """
    batch = pad([list(row) for row in rows])
    positions = (batch.attention_mask.cumsum(1) - 1).clamp_min(0)
    if offsets is not None:
        positions = positions + torch.tensor(offsets, dtype=torch.long)[:, None]
    inputs = {**batch.inputs, "position_ids": positions}
    return {name: tensor.to(device) for name, tensor in inputs.items()}


def input_device(model) -> torch.device:
    """Device of the token embeddings: where a model spread over devices takes its inputs."""
    return model.get_input_embeddings().weight.device


def accepted(model, inputs: dict) -> dict:
    """The inputs that the model's forward takes (some models take no ``position_ids``)."""
    parameters = inspect.signature(model.forward).parameters
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        return inputs
    return {name: value for name, value in inputs.items() if name in parameters}


def logits_at(model, inputs: dict, rows: Sequence[int], places: Sequence[int]) -> torch.Tensor:
    """Logits ``[N, V]`` of N positions: ``places[n]`` of row ``rows[n]``.

    V is large and targets are short. Where the unembedding is a module that the model calls with hidden
    states ``[B, T, d]``, it gets those of the N positions alone; elsewhere the others' logits are dropped.
    """
    first, stop = (min(places), max(places) + 1) if places else (0, 1)
    named = dict(accepted(model, inputs))
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        named["logits_to_keep"] = torch.arange(first, stop)  # on the CPU: of hidden states of any device
    else:
        first = 0
    at = torch.tensor([list(rows), [place - first for place in places]], dtype=torch.long)
    picked = False

    def pick(_, args):
        nonlocal picked
        if len(args) == 1 and args[0].dim() == 3 and len(args[0]) == len(inputs["input_ids"]):
            picked = True
            return (args[0][tuple(at.to(args[0].device))][None],)

    head = model.get_output_embeddings()
    handle = head.register_forward_pre_hook(pick) if isinstance(head, torch.nn.Module) else None
    try:
        logits = model(**named, use_cache=False).logits
    finally:
        if handle is not None:
            handle.remove()
    return logits[0] if picked else logits[tuple(at.to(logits.device))]


@contextlib.contextmanager
def evaluating(model):
    """No gradients and no dropout; every submodule's training flag is put back afterwards."""
    with eval_mode(model), torch.no_grad():
        yield model
