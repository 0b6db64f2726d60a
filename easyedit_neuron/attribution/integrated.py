"""Integrated gradients over the FFN activations of one token (Sundararajan et al., 2017; PNKE, B.3)."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..arch import Capture, ModelView, next_keys, take
from ..arch.capture import Prefix
from ..arch.view import HALF, frozen_parameters
from ..errors import NeuronEditError
from ..utils.memory import batch_results
from ..utils.suggest import did_you_mean
from .quadrature import RULES, nodes
from .targets import TargetTokens


@dataclass(frozen=True)
class IntegratedGradients:
    """Attributions of B prompts.

    Attributes:
        scores: ``{layer: [B, d_ff] float32}`` (float64 for a float64 model), on the device of the layer's
            edited weight.
        activations: ``{layer: [B, d_ff]}`` the real activations a at the position, same dtype and device.
        probability: ``[B]`` the target's probability under them (CPU).
    """

    scores: dict[int, Tensor]
    activations: dict[int, Tensor]
    probability: Tensor


def integrated_gradients(
    view: ModelView,
    targets: TargetTokens,
    layers: Iterable[int],
    position: Tensor | None = None,
    whole_target: bool = False,
    steps: int = 20,
    rule: Literal["gauss", "right"] = "gauss",
    step_batch: int = 64,
) -> IntegratedGradients:
    """``attr_i = a_i * integral_0^1 dP(alpha a) / da_i d alpha`` for every neuron of every layer by itself.

    a are the inputs of the layer's down projection at one token, and P is the probability of the target
    behind the prompt. Along the path from zero to a, the rest of the network is computed anew; other tokens
    keep their own activations. The attributions of a layer add up to ``P(a) - P(0)``, up to the error of the
    rule. The blocks below a layer do not depend on its path and are run once.

    With a norm behind the FFN (gemma2), the norm undoes alpha: P changes only where ``|FFN output|`` is near
    the root of the norm's eps. Few points resolve little of that.

    Args:
        view: the model; its parameters, flags and gradients are unchanged afterwards.
        targets: B prompts and their targets (``target_tokens``).
        layers: layers to attribute to.
        position: ``[B]`` index of the token. Default: the prompt's last. A position behind the target's first
            prediction gets 0.
        whole_target: False (default): P of the target's first token. True: the product of P over all of the
            target's tokens, teacher-forced.
        steps: points on the path, m. Default 20.
        rule: ``gauss`` (default): Gauss-Legendre, exact for polynomials of degree ``2m - 1``. ``right``: the
            Riemann sum at ``alpha = j / m``.
        step_batch: points per forward and backward pass; halved if they do not fit into memory. Default 64.

    Raises:
        NeuronEditError: no layers, ``steps`` or ``step_batch`` below 1, an unknown rule, positions outside of
            their rows.
        ArchitectureError: a layer that does not exist.
    """
    layers = list(layers)
    _check(layers, targets, position, steps, rule, step_batch)
    position = targets.prompt_end if position is None else position.to(targets.prompt_end)
    answers = targets if whole_target else targets.first()
    alphas, weights = nodes(rule, steps)
    scores: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    activations: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    probability = []
    prompts_at_once = max(1, step_batch // steps)
    with frozen_parameters(view.model):
        for start in range(0, len(position), prompts_at_once):
            part = slice(start, min(start + prompts_at_once, len(position)))
            paths = _Paths(view, answers.rows(part.start, part.stop), position[part])
            for layer in sorted(layers):
                a = paths.activations(layer)
                gradients = paths.gradients(layer, a, alphas, step_batch)
                mean_gradient = torch.einsum("bmi,m->bi", gradients, weights.to(gradients))
                activations[layer].append(a.to(mean_gradient.dtype))
                scores[layer].append(a * mean_gradient)
            probability.append(paths.probability())
    return IntegratedGradients(
        {layer: torch.cat(parts) for layer, parts in scores.items()},
        {layer: torch.cat(parts) for layer, parts in activations.items()},
        torch.cat(probability),
    )


class _Paths:
    """The paths of b prompts, layer after layer in ascending order."""

    def __init__(self, view: ModelView, answers: TargetTokens, position: Tensor):
        self.view = view
        self.answers = answers
        self.position = position
        self.prompts = torch.arange(len(position), device=position.device)
        self.prefix: Prefix | None = None

    @torch.no_grad()
    def activations(self, layer: int) -> Tensor:
        """Activations ``[b, d_ff]`` at the position, in the dtype of the model; ``gradients`` starts here."""
        keys, self.prefix = next_keys(self.view, self.answers.batch.inputs, layer, self.prefix)
        return take(keys, self.prompts, self.position)

    @torch.no_grad()
    def probability(self) -> Tensor:
        """``[b]``, of the target under the real activations (CPU)."""
        return self._log_probability(self.prompts).to(self.view.compute_dtype).exp().cpu()

    def gradients(self, layer: int, a: Tensor, alphas: Tensor, step_batch: int) -> Tensor:
        """``[b, m, d_ff]``: dP/da at the points ``alpha a`` of the layer of the last ``activations``."""
        steps = len(alphas)

        @torch.enable_grad()
        def run(numbers: range):
            numbers = torch.tensor(numbers)
            prompts, alpha = numbers // steps, alphas[numbers % steps].to(a.device, self.view.compute_dtype)
            points = (alpha[:, None] * a[prompts.to(a.device)]).to(a.dtype).requires_grad_()
            logs = self._log_probability(prompts.to(self.prompts.device), layer, points)
            if points.dtype not in HALF:
                return torch.autograd.grad(logs.exp().sum(), points)[0]
            # dP/da = P d(log P)/da: the gradient of a small P is 0 in half precision.
            slopes = torch.autograd.grad(logs.sum(), points)[0].to(self.view.compute_dtype)
            return slopes * logs.detach().to(slopes).exp()[:, None]

        parts = batch_results(range(len(a) * steps), step_batch, run, "integrated gradients")
        return torch.cat(parts).view(len(a), steps, -1).to(self.view.compute_dtype)

    def _log_probability(
        self, prompts: Tensor, layer: int | None = None, points: Tensor | None = None
    ) -> Tensor:
        """Log probability ``[n]`` of the targets of ``prompts [n]``.

        With ``points [n, d_ff]`` these replace the layer's activations at the position.
        """
        rows, position = torch.arange(len(prompts), device=prompts.device), self.position[prompts]

        def put_points(q: Tensor) -> Tensor:
            return q.index_put((rows.to(q.device), position.to(q.device)), points)

        batch, edits = self.answers.batch, {} if points is None else {layer: put_points}
        skip = self.prefix and self.prefix.rows(prompts)
        with Capture(self.view, [], "final_hidden", "final", skip=skip, edit_key=edits) as seen:
            self.view.model(
                input_ids=batch.input_ids[prompts],
                attention_mask=batch.attention_mask[prompts],
                use_cache=False,
            )
        row, _, log_probs = self.answers.log_probabilities(self.view, seen.final_hidden, prompts)
        return log_probs.new_zeros(len(prompts)).index_add(0, row.to(log_probs.device), log_probs)


def _check(layers, targets: TargetTokens, position, steps: int, rule: str, step_batch: int) -> None:
    if not layers:
        raise NeuronEditError("integrated gradients need at least one layer")
    for name, value in (("steps", steps), ("step_batch", step_batch)):
        if value < 1:
            raise NeuronEditError(f"{name} must be at least 1, got {value}")
    if rule not in RULES:
        raise NeuronEditError(f"rule {rule!r} is unknown: {did_you_mean(rule, RULES)}")
    if position is None:
        return
    lengths = targets.batch.lengths.to(position.device)
    if position.shape != lengths.shape or bool(((position < 0) | (position >= lengths)).any()):
        raise NeuronEditError(
            f"position: expected one index per prompt inside its row, got {position.tolist()}"
        )
