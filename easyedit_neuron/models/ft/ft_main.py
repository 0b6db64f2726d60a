"""Fine-tuning of a few weights on the requests: the baselines FT-L (``prompt_last``) and FT-M
(``target_new``).

Zhu et al., "Modifying Memories in Transformer Models" (arXiv:2012.00363) with the norm constraint, as
EasyEdit runs it. For a single request the weights are EasyEdit's. For several at once EasyEdit's numbers
depend on the tokenizer's padding side, and under ``prompt_last`` its pad tokens are trained as targets; here
neither happens.
"""

import contextlib
import copy as copy_module
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.nn import functional

from ...arch.tokens import Batch, pad, token_ids
from ...arch.view import ModelView
from ...errors import HparamsError, RequestError
from .ft_hparams import FTHyperParams

LOG = logging.getLogger(__name__)

#: a batch at or below this loss (nats) is not trained any further
STOP_LOSS = 1e-2


def apply_ft_to_model(
    model,
    tok,
    requests: list[dict],
    hparams: FTHyperParams,
    copy: bool = False,
    return_orig_weights: bool = False,
    keep_original_weight: bool = False,
    **kwargs: Any,
) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    """Fine-tune ``model`` on ``requests``.

    Args:
        model, tok: causal language model, edited in place (or a deep copy with ``copy``), and its tokenizer,
            not changed.
        requests: dictionaries with ``prompt`` and ``target_new``; not changed.
        hparams: see :class:`.ft_hparams.FTHyperParams`.
        return_orig_weights: fill the returned dictionary.
        keep_original_weight, **kwargs: EasyEdit's; not needed.

    Returns:
        The model and {parameter name: weight before}, empty without ``return_orig_weights``.

    Raises:
        RequestError, HparamsError: before anything is changed. If anything fails later, the weights are put
            back.
    """
    if copy:
        model = copy_module.deepcopy(model)
    deltas = execute_ft(model, tok, requests, hparams)
    weights_copy: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        for name, delta in deltas.items():
            weight = model.get_parameter(name)
            if return_orig_weights:
                weights_copy[name] = weight.detach().clone()
            weight += delta
    return model, weights_copy


def execute_ft(model, tok, requests: Sequence[dict], hparams: FTHyperParams) -> dict[str, torch.Tensor]:
    """{parameter name: change} that fine-tuning makes; the model is afterwards as it was."""
    weights = _trained_weights(model, hparams)
    batches = [
        _batch(tok, requests[i : i + hparams.batch_size], hparams, next(iter(weights.values())).device, i)
        for i in range(0, len(requests), hparams.batch_size)
    ]
    if not batches:
        raise RequestError("no requests; give at least one with prompt and target_new")
    limit = None if hparams.norm_constraint is False else float(hparams.norm_constraint)
    with _training_only(model, weights) as originals:
        optimizer = torch.optim.Adam(list(weights.values()), lr=hparams.lr, weight_decay=hparams.weight_decay)
        for step in range(hparams.num_steps):
            total = 0.0
            for batch, targets in batches:
                optimizer.zero_grad()
                with torch.enable_grad():
                    loss = _loss(model, batch, targets, hparams.objective_optimization)
                value = loss.item()
                total += value * len(targets)
                if value >= STOP_LOSS:
                    loss.backward()
                    optimizer.step()
                if limit is not None:
                    _clamp(weights, originals, limit)
            mean = total / len(requests)
            LOG.debug("step %d: loss %.4f", step, mean)
            if mean < STOP_LOSS:
                break
        return {name: (weight - originals[name]).detach() for name, weight in weights.items()}


def _trained_weights(model, hparams: FTHyperParams) -> dict[str, torch.nn.Parameter]:
    parameters, weights = dict(model.named_parameters()), {}
    view = ModelView.of(model) if hparams.rewrite_module_tmp is None else None
    for layer in hparams.layers:
        name = view.down_weight_name(layer) if view else hparams.rewrite_module_tmp.format(layer)
        found = {full: p for full, p in parameters.items() if full == name or full.startswith(name + ".")}
        if not found:
            raise HparamsError(
                f"field 'rewrite_module_tmp': the model has no parameter {name!r}; "
                "leave the field out for the architecture's down projection"
            )
        weights.update(found)
    return weights


def _batch(
    tok, requests: Sequence[dict], hparams: FTHyperParams, device, first: int
) -> tuple[Batch, list[list[int]]]:
    """Token ids that the model reads, and the target token ids of each request.

    ``prompt_last`` reads the prompts, ``target_new`` prompts and targets (a space between them, as EasyEdit
    joins them).
    """
    rows, targets = [], []
    for i, request in enumerate(requests, start=first):
        prompt, target = request.get("prompt"), request.get("target_new")
        if not isinstance(prompt, str) or not isinstance(target, str) or not target:
            raise RequestError(
                f"request {i}: prompt and target_new must be non-empty texts, got {prompt!r} and {target!r}"
            )
        target = target if target == " " else " " + target
        row = token_ids(tok, prompt)
        if not row:
            raise RequestError(f"request {i}: prompt {prompt!r} has no tokens")
        if hparams.objective_optimization == "prompt_last":
            ids = [
                t
                for t in token_ids(tok, target, special=hparams.target_special_tokens)
                if t != tok.unk_token_id
            ]
        else:
            whole = token_ids(tok, prompt + target)
            ids, row = whole[len(row) :], whole
        if not ids:
            raise RequestError(f"request {i}: target_new {target!r} has no tokens of its own")
        rows.append(row)
        targets.append(ids)
    return pad(rows, device), targets


def _loss(model, batch: Batch, targets: list[list[int]], objective: str) -> torch.Tensor:
    """Mean over requests of the mean negative log-likelihood (nats) of a request's target tokens."""
    logits = model(**batch.inputs, use_cache=False).logits
    losses = []
    for row, ids in enumerate(targets):
        labels = torch.tensor(ids, device=logits.device)
        last = int(batch.lengths[row]) - 1
        if objective == "prompt_last":
            losses.append(-logits[row, last].log_softmax(-1)[labels].mean())
        else:
            losses.append(functional.cross_entropy(logits[row, last - len(ids) : last], labels))
    return torch.stack(losses).mean()


def _clamp(weights: dict[str, torch.nn.Parameter], originals: dict[str, torch.Tensor], limit: float) -> None:
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(torch.clamp(weight, min=originals[name] - limit, max=originals[name] + limit))


@contextlib.contextmanager
def _training_only(model, weights: dict[str, torch.nn.Parameter]) -> Iterator[dict[str, torch.Tensor]]:
    """Gradients for the given weights alone; afterwards weights, gradients and flags are as before, also
    after an exception.

    Yields the weights' copies.
    """
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    gradients = {name: p.grad for name, p in weights.items()}
    originals = {name: p.detach().clone() for name, p in weights.items()}
    try:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in weights)
        yield originals
    finally:
        with torch.no_grad():
            for name, parameter in weights.items():
                parameter.copy_(originals[name])
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(flags[name])
            if name in weights:
                parameter.grad = gradients[name]
