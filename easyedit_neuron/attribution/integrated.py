"""Integrated gradients over the FFN activations of one token (Sundararajan et al., 2017; PNKE, B.3)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..arch import Capture, ModelView, next_keys, take
from ..arch.capture import Prefix
from ..arch.frozen import frozen_parameters
from ..errors import NeuronEditError
from ..utils.memory import in_batches
from ..utils.suggest import did_you_mean
from .quadrature import RULES, nodes
from .targets import TargetTokens


@dataclass(frozen=True)
class IntegratedGradients:
    """Attributions of B prompts.

    Attributes:
        scores: ``{layer: [B, d_ff] float32}`` (float64 for a float64 model) on the device of the layer's
            edited weight.
        activations: ``{layer: [B, d_ff]}`` the real activations a at the position, likewise.
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
    """``attr_i = a_i * integral_0^1 dP(alpha a) / da_i d alpha`` for every neuron of every layer, each layer
    by itself.

    a are the inputs of the layer's down projection at one token; along the path from zero to a all else in
    the network is computed anew, at the other tokens with their own activations. P is the probability of the
    target behind the prompt. The attributions of a layer add up to ``P(a) - P(0)`` but for the error of the
    rule. The blocks below a layer do not depend on its path and are run once.

    With a norm behind the FFN (gemma2) the norm undoes alpha: P moves where ``|FFN output|`` is about the
    root of the norm's eps and hardly elsewhere, and few points see little of it.

    Args:
        view: the model; parameters, flags and gradients are left as they are.
        targets: B prompts and their targets (``target_tokens``).
        layers: layers to attribute to.
        position: ``[B]`` index of the token; unset: the prompt's last. A later one than the target's first
            prediction gets 0.
        whole_target: P of all of the target's tokens, teacher-forced (their product); else of the first.
        steps: points on the path, m.
        rule: ``gauss``: Gauss-Legendre, exact for polynomials of degree 2m - 1; ``right``: the Riemann sum at
            alpha = j / m.
        step_batch: points per forward and backward pass; bounds the memory, and is halved where that does not
            suffice.

    Raises:
        NeuronEditError: ``steps`` or ``step_batch`` below 1, an unknown rule, positions that are not in their
            rows.
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
    group = max(1, step_batch // steps)
    with frozen_parameters(view.model):
        for start in range(0, len(position), group):
            paths = _Paths(view, answers, range(start, min(start + group, len(position))), position)
            for layer in sorted(layers):
                a = paths.activations(layer)
                slopes = paths.gradients(layer, a, alphas, step_batch)
                slope = torch.einsum("bmi,m->bi", slopes, weights.to(slopes))
                activations[layer].append(a.to(slope.dtype))
                scores[layer].append(a * slope)
            probability.append(paths.probability())
    return IntegratedGradients(
        {layer: torch.cat(parts) for layer, parts in scores.items()},
        {layer: torch.cat(parts) for layer, parts in activations.items()},
        torch.cat(probability),
    )


class _Paths:
    """The paths of b prompts, layer after layer in ascending order."""

    def __init__(self, view: ModelView, answers: TargetTokens, prompts: range, position: Tensor):
        self.view = view
        self.answers = answers.rows(prompts.start, prompts.stop)
        self.batch = self.answers.batch
        self.position = position[prompts.start : prompts.stop]
        self.every = torch.arange(len(prompts), device=position.device)
        self.prefix: Prefix | None = None

    @torch.no_grad()
    def activations(self, layer: int) -> Tensor:
        """``[b, d_ff]`` at the position, in the model's dtype. What lies below the layer is not run again."""
        keys, self.prefix = next_keys(
            self.view, self.batch.inputs, layer, self.prefix
        )  # the paths start there too
        return take(keys, self.every, self.position)

    @torch.no_grad()
    def probability(self) -> Tensor:
        """``[b]`` of the target under the real activations (CPU)."""
        return self._run(self.every).cpu()

    def gradients(self, layer: int, a: Tensor, alphas: Tensor, step_batch: int) -> Tensor:
        """``[b, m, d_ff]``: dP/da at the points ``alpha a`` of the layer last asked for."""
        steps = len(alphas)

        @torch.enable_grad()
        def some(numbers: range):
            points = torch.tensor(numbers)
            rows, alpha = points // steps, alphas[points % steps].to(a.device, self.view.compute_dtype)
            point = (alpha[:, None] * a[rows.to(a.device)]).to(a.dtype).requires_grad_()
            return torch.autograd.grad(self._run(rows.to(self.every.device), layer, point).sum(), point)[
                0
            ].unbind(0)

        found = in_batches(range(len(a) * steps), step_batch, some, "integrated gradients")
        return torch.stack(found).view(len(a), steps, -1).to(self.view.compute_dtype)

    def _run(self, rows: Tensor, layer: int | None = None, point: Tensor | None = None) -> Tensor:
        """Probability of the target for prompts ``rows [n]``, ``point [n, d_ff]`` standing for their
        activations if given."""
        every, at = torch.arange(len(rows), device=rows.device), self.position[rows]

        def put(q: Tensor) -> Tensor:
            return q.index_put((every.to(q.device), at.to(q.device)), point)

        skip = self.prefix and self.prefix.rows(rows)
        with Capture(
            self.view, [], "final_hidden", "final", skip=skip, edit_key={} if point is None else {layer: put}
        ) as seen:
            self.view.model(
                input_ids=self.batch.input_ids[rows],
                attention_mask=self.batch.attention_mask[rows],
                use_cache=False,
            )
        row, _, logs = self.answers.log_probabilities(self.view, seen.final_hidden, rows)
        return logs.new_zeros(len(rows)).index_add(0, row.to(logs.device), logs).exp()


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
