"""Fine-tuning of a few weights on the requests: the baselines FT-L (``prompt_last``) and FT-M
(``target_new``).

Zhu et al., "Modifying Memories in Transformer Models" (arXiv:2012.00363) with the norm constraint, as
EasyEdit runs it. For a single request the weights are EasyEdit's. For several requests EasyEdit's numbers
depend on the tokenizer's padding side, and its ``prompt_last`` also trains pad tokens as targets. Here
neither happens.
"""

from __future__ import annotations

import copy as copy_module
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...arch.chat import prompt_tokenizer
from ...arch.plain_model import require_plain
from ...arch.tokens import Batch, pad, pair_ids, target_token_ids, token_ids
from ...arch.view import HALF, ModelView, eval_mode, frozen_parameters
from ...edits.write import clone_weights, restore
from ...errors import EditError, HparamsError, RequestError
from ...utils.spelling import tidied
from .ft_hparams import FTHyperParams

LOG = logging.getLogger(__name__)

STOP_LOSS = 1e-2
"""A batch at or below this loss (nats) is not trained any further."""


def apply_ft_to_model(
    model, tok, requests, hparams, copy=False, return_orig_weights=False, keep_original_weight=False, **kwargs
):
    """Fine-tune ``model`` on ``requests``.

    Args:
        model, tok: causal language model, edited in place, and its tokenizer (never changed).
        requests: dictionaries with ``prompt`` and ``target_new``; not changed.
        hparams: ``FTHyperParams``.
        copy: edit a deep copy.
        return_orig_weights: return the weights as they were, for EasyEdit to put back.
        keep_original_weight, **kwargs: accepted for EasyEdit, not used.

    Returns:
        (model, {parameter name: original tensor}), the second empty without ``return_orig_weights``.

    Raises:
        NeuronEditError: bad hyperparameters or requests, before anything is changed. After any later error
            the model is as it was.
    """
    model = copy_module.deepcopy(model) if copy else model
    deltas = execute_ft(model, tok, requests, hparams)
    originals = clone_weights(model, deltas) if return_orig_weights else {}
    with torch.no_grad():
        for name, delta in deltas.items():
            model.get_parameter(name).add_(delta)
    return model, originals


def execute_ft(model: nn.Module, tok, requests: Sequence[dict], hparams: FTHyperParams) -> dict[str, Tensor]:
    """{parameter name: change} by fine-tuning; the model is as before afterwards, also after an error.

    Raises:
        RequestError: no requests, or a request without a prompt or a target.
        HparamsError: ``rewrite_module_tmp`` names no parameter of the model, or the tokenizer has no chat
            template where ``use_chat_template`` is on.
    """
    weights = _trained_weights(model, hparams)
    if not requests:
        raise RequestError("no requests; give at least one with prompt and target_new")
    device = next(iter(weights.values())).device
    tok = prompt_tokenizer(tok, hparams)
    examples = [_example(tok, tidied(request), index, hparams) for index, request in enumerate(requests)]
    batches = [
        _TrainingBatch.of(examples[start : start + hparams.batch_size], device)
        for start in range(0, len(examples), hparams.batch_size)
    ]
    originals = clone_weights(model, weights)
    gradients = {name: weight.grad for name, weight in weights.items()}
    try:
        with frozen_parameters(model), eval_mode(model):
            for weight in weights.values():
                weight.requires_grad_(True)
            _train(model, weights, originals, batches, hparams)
            return {name: weight.detach() - originals[name] for name, weight in weights.items()}
    finally:
        restore(model, originals)
        for name, weight in weights.items():
            weight.grad = gradients[name]


def _trained_weights(model: nn.Module, hparams: FTHyperParams) -> dict[str, nn.Parameter]:
    require_plain(model)
    view = ModelView.of(model) if hparams.rewrite_module_tmp is None else None
    weights: dict[str, nn.Parameter] = {}
    for layer in hparams.layers:
        name = view.down_weight_name(layer) if view else hparams.rewrite_module_tmp.format(layer)
        matches = {
            full_name: parameter
            for full_name, parameter in model.named_parameters()
            if full_name == name or full_name.startswith(name + ".")
        }
        if not matches:
            raise HparamsError(
                f"field 'rewrite_module_tmp': the model has no parameter {name!r}; "
                "leave the field out for the architecture's down projection"
            )
        weights |= matches
    return weights


def _example(tok, request: dict, index: int, hparams: FTHyperParams) -> tuple[list[int], list[int]]:
    """Token ids that the model reads for one request, and those that it is trained to predict.

    ``prompt_last`` reads the prompt; ``target_new`` reads prompt, space and target, as EasyEdit does.
    """
    prompt, target = request.get("prompt"), request.get("target_new")
    if not isinstance(prompt, str) or not isinstance(target, str) or not target:
        raise RequestError(
            f"request {index}: prompt and target_new must be non-empty texts, got {prompt!r} and {target!r}"
        )
    target = target if target == " " else " " + target
    input_ids = token_ids(tok, prompt)
    if not input_ids:
        raise RequestError(f"request {index}: prompt {prompt!r} has no tokens")
    if hparams.objective_optimization == "prompt_last":
        if hparams.use_chat_template:
            target_ids = target_token_ids(tok, target)
        else:
            target_ids = token_ids(tok, target, special=hparams.target_special_tokens)
        target_ids = [token for token in target_ids if token != tok.unk_token_id]
    else:
        prompt_length = len(input_ids)
        (input_ids,) = pair_ids(tok, [prompt], [target.removeprefix(" ")])
        target_ids = input_ids[prompt_length:]
    if not target_ids:
        raise RequestError(f"request {index}: target_new {target!r} has no tokens of its own")
    return input_ids, target_ids


@dataclass(frozen=True)
class _TrainingBatch:
    """Requests of one Adam step: padded inputs, and the target token ids of each."""

    inputs: Batch
    targets: list[list[int]]

    @classmethod
    def of(cls, examples: list[tuple[list[int], list[int]]], device) -> _TrainingBatch:
        input_ids, target_ids = zip(*examples)
        return cls(pad(list(input_ids), device), list(target_ids))

    def loss(self, model: nn.Module, objective: str) -> Tensor:
        """Mean over requests of the mean negative log-likelihood (nats) of a request's target tokens."""
        logits = model(**self.inputs.inputs, use_cache=False).logits
        logits = logits.float() if logits.dtype in HALF else logits
        losses = []
        for row, target_ids in enumerate(self.targets):
            labels = torch.tensor(target_ids, device=logits.device)
            last = int(self.inputs.lengths[row]) - 1
            if objective == "prompt_last":
                losses.append(-logits[row, last].log_softmax(-1)[labels].mean())
            else:
                losses.append(functional.cross_entropy(logits[row, last - len(target_ids) : last], labels))
        return torch.stack(losses).mean()


def _train(
    model: nn.Module,
    weights: dict[str, nn.Parameter],
    originals: dict[str, Tensor],
    batches: list[_TrainingBatch],
    hparams: FTHyperParams,
) -> None:
    """Train the weights in place until the mean loss is below ``STOP_LOSS``, at most ``num_steps`` epochs.

    Adam's numbers need more than half precision: such weights are copies of float32 ones, which are trained.

    Raises:
        EditError: a loss or a weight is not finite.
    """
    masters = {
        name: nn.Parameter(weight.detach().float()) if weight.dtype in HALF else weight
        for name, weight in weights.items()
    }
    optimizer = torch.optim.Adam(list(masters.values()), lr=hparams.lr, weight_decay=hparams.weight_decay)
    limit = hparams.norm_constraint
    for step in range(hparams.num_steps):
        total = 0.0
        for batch in batches:
            for weight in weights.values():
                weight.grad = None
            with torch.enable_grad():
                loss = batch.loss(model, hparams.objective_optimization)
            value = loss.item()
            if not math.isfinite(value):
                raise EditError(
                    f"the loss is not finite at step {step}: the model's own numbers overflow (a broken or "
                    "float16 model), or 'lr' is too high"
                )
            total += value * len(batch.targets)
            if value >= STOP_LOSS:
                loss.backward()
                _step(optimizer, weights, masters)
            with torch.no_grad():
                for name, weight in weights.items():
                    if limit is not False:
                        lowest, highest = originals[name] - limit, originals[name] + limit
                        masters[name].copy_(masters[name].clamp(lowest, highest))
                    if masters[name] is not weight:
                        weight.copy_(masters[name])
        mean_loss = total / sum(len(batch.targets) for batch in batches)
        LOG.debug("step %d: loss %.4f", step, mean_loss)
        if mean_loss < STOP_LOSS:
            break
    broken = [name for name, weight in weights.items() if not bool(torch.isfinite(weight).all())]
    if broken:
        raise EditError(f"training gave {broken[0]} numbers that are not finite; lower 'lr'")


def _step(
    optimizer: torch.optim.Optimizer, weights: dict[str, nn.Parameter], masters: dict[str, nn.Parameter]
) -> None:
    for name, weight in weights.items():
        if masters[name] is not weight:
            masters[name].grad = None if weight.grad is None else weight.grad.float()
    optimizer.step()
