"""KNE's score of every row (or column) of a weight: integrated gradients of the answer over the weight's
scale (Eq. 3-5).

The paper scales the parameters w_k of one neuron at a time; scored so, every row would need forward passes of
its own. As in the knowledge-neuron method that it builds on, all rows of a weight are scaled together here,
and each row gets its share: with ``W(a) = a W`` and ``g_k`` the factor of row k,

    Attr(k) = integral_0^1 dF/dg_k da at g = a,   F = sum over the answer's tokens of their probability,

which is ``out_k`` (the row's product with the module's input, without its bias) times the mean of ``dF/d
out_k``, summed over the prompt's tokens. The attributions of a module therefore add up to ``F(W) - F(W = 0)``
of that module. Eq. 3 changes nothing but the scaled neuron, so the other modules keep their weights;
``scaling: joint`` scales all of them at once, and then only the sum over all modules is complete.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from ...arch import Capture, ModelView, Projection, prefix_before
from ...arch.capture import Prefix
from ...arch.projections import Axis
from ...arch.view import frozen_parameters
from ...attribution.quadrature import Rule, nodes
from ...attribution.targets import TargetTokens
from ...errors import NeuronEditError
from ...utils.memory import batch_results


def mean_attributions(
    view: ModelView,
    targets: TargetTokens,
    sites: Sequence[Projection],
    *,
    axis: Axis = "output",
    steps: int = 20,
    rule: Rule = "right",
    scaling: Literal["module", "joint"] = "module",
    probability: Literal["token", "prefix"] = "token",
    step_batch: int = 64,
) -> dict[str, Tensor]:
    """Mean over B prompts of ``Attr(k)`` for every row (``axis: input``: column) of every site.

    What lies below a site's layer does not depend on its scale and is run once per prompt. Memory: one number
    per row, and the activations of ``step_batch`` rows of tokens; never anything of the size of a weight.

    Args:
        view: the model; weights, flags and gradients are left as they are.
        targets: B prompts and the answers whose tokens are attributed.
        sites: the linear maps.
        axis: what is scored.
        steps: points on the path, m.
        rule: where they lie.
        scaling: each site by itself, or all together.
        probability: of each token of the answer behind the earlier ones, or of the answer up to that token.
        step_batch: points (of all prompts) per forward and backward pass.

    Returns:
        ``{site.key: [rows or columns]}``, float32 (float64 for a float64 model), CPU.

    Raises:
        NeuronEditError: no sites, ``steps`` or ``step_batch`` below 1, or scores that are not finite.
    """
    if not sites or steps < 1 or step_batch < 1:
        raise NeuronEditError(
            "attribution needs modules, and steps and step_batch of at least 1, got "
            f"{len(sites)}, {steps} and {step_batch}"
        )
    ordered = sorted(sites, key=lambda site: site.layer)
    groups = [ordered] if scaling == "joint" else [[site] for site in ordered]
    sums = {site.key: torch.zeros(site.size(axis)[0], dtype=view.compute_dtype) for site in sites}
    alphas, weights = nodes(rule, steps)
    count = len(targets.prompt_end)
    with frozen_parameters(view.model):
        for start in range(0, count, max(1, step_batch // steps)):
            path = _Paths(
                view,
                targets.rows(start, min(start + max(1, step_batch // steps), count)),
                probability == "prefix",
            )
            for group in groups:
                for site, slopes in zip(group, path.slopes(group, axis, alphas, weights, step_batch)):
                    sums[site.key] += slopes
    bad = [key for key, total in sums.items() if not bool(torch.isfinite(total).all())]
    if bad:
        raise NeuronEditError(
            f"the scores of {', '.join(bad)} are not finite; the model's weights or activations overflow"
        )
    return {key: total / count for key, total in sums.items()}


class _Paths:
    """The paths of b prompts, one group of modules after another, in ascending order of layers."""

    def __init__(self, view: ModelView, targets: TargetTokens, prefix_probability: bool):
        self.view, self.targets, self.cumulative = view, targets, prefix_probability
        self.prefix: Prefix | None = None

    def slopes(
        self, group: Sequence[Projection], axis: Axis, alphas: Tensor, weights: Tensor, step_batch: int
    ) -> list[Tensor]:
        """``[units]`` per site of the group: the integral of dF/dg, summed over the prompts (CPU)."""
        batch, steps = self.targets.batch, len(alphas)
        with torch.no_grad():
            self.prefix = prefix_before(self.view, batch.inputs, group[0].layer, self.prefix)
        dtype = self.view.compute_dtype

        @torch.enable_grad()
        def some(numbers: range):
            points = torch.tensor(numbers)
            # dF/dg_k summed over points: the slope of one probe that is added to the factor g_k of all of
            # them
            probes = [
                torch.zeros(site.size(axis)[0], dtype=dtype, device=site.rows.device, requires_grad=True)
                for site in group
            ]
            alpha = alphas[points % steps].to(dtype)
            edits = [
                (
                    site.layer,
                    site.module,
                    _scaled(self.view, site, axis, alpha.to(site.rows.device)[:, None, None], probe),
                )
                for site, probe in zip(group, probes)
            ]
            total = self._weighted(points // steps, weights[points % steps], edits)
            return [slope.cpu() for slope in torch.autograd.grad(total, probes)]

        parts = batch_results(range(len(batch.lengths) * steps), step_batch, some, "attribution of rows")
        return [torch.stack(slopes).sum(0) for slopes in zip(*parts)]

    def _weighted(self, rows: Tensor, weights: Tensor, edits: list) -> Tensor:
        """F of the prompts ``rows [n]`` under the edits, times their weights, summed."""
        batch, skip = self.targets.batch, self.prefix and self.prefix.rows(rows)
        rows = rows.to(batch.input_ids.device)
        with Capture(self.view, [], "final_hidden", "final", skip=skip, edit_modules=edits) as seen:
            self.view.model(
                input_ids=batch.input_ids[rows], attention_mask=batch.attention_mask[rows], use_cache=False
            )
        row, answer, logs = self.targets.log_probabilities(self.view, seen.final_hidden, rows)
        if self.cumulative:
            at = self.targets.position[answer]
            earlier = (row[:, None] == row) & (at[:, None] >= at)
            logs = earlier.to(logs) @ logs
        return (logs.exp() * weights.to(logs)[row.to(logs.device)]).sum()


def _scaled(view: ModelView, site: Projection, axis: Axis, alpha: Tensor, probe: Tensor):
    """``f(output, input)``: the output with the site's weight times ``alpha [n, 1, 1] + probe [units]``, the
    bias as it is."""
    bias, less = site.bias(view), alpha + probe - 1.0
    bias = 0.0 if bias is None else bias[site.rows].to(probe.dtype)
    weight = site.weight(view) if axis == "input" else None

    def edit(output: Tensor, x: Tensor) -> Tensor:
        own = output[..., site.rows] if site.fused else output
        if axis == "output":
            change = less * (own.to(less.dtype) - bias)
        else:
            change = ((less * x.to(less.dtype)).to(weight.dtype) @ weight.T).to(less.dtype)
        new = (own.to(less.dtype) + change).to(output.dtype)
        return output.index_copy(-1, site.rows, new) if site.fused else new

    return edit
