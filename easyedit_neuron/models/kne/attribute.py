"""KNE's score of every row (or column) of a weight: integrated gradients of the answer over the weight's
scale (Eq. 3-5).

The paper scales the parameters w_k of one neuron at a time, so that every row would need forward passes of
its own. Here, as in the knowledge-neuron method that KNE builds on, all rows of a weight are scaled together
and each row gets its share. With ``W(a) = a W`` and ``g_k`` the factor of row k,

    Attr(k) = integral_0^1 dF/dg_k da at g = a,   F = sum over the answer's tokens of their probability,

which is ``out_k`` (the row's product with the module's input, without its bias) times the mean of ``dF/d
out_k``, summed over the prompt's tokens. The attributions of a module therefore add up to ``F(W) - F(W = 0)``
of that module. Eq. 3 scales one module, so the other modules keep their weights. With ``scaling: joint`` all
modules are scaled at once, and only the sum over all of them is complete. ``scaling: neuron`` is the paper to
the letter: one row is scaled, all others keep their weights, at one forward and backward row of tokens for
each row of the weight and point.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...arch import Capture, ModelView, Projection, prefix_before
from ...arch.capture import Prefix
from ...arch.projections import Axis
from ...arch.view import HALF, frozen_parameters
from ...attribution.quadrature import nodes
from ...attribution.targets import TargetTokens
from ...errors import NeuronEditError
from ...utils.memory import batch_results
from .kne_hparams import AttributionOptions


def mean_attributions(
    view: ModelView, targets: TargetTokens, sites: Sequence[Projection], options: AttributionOptions
) -> dict[str, Tensor]:
    """Mean over B prompts of ``Attr(k)`` for every row (``neuron_axis: input``: column) of every site.

    The blocks below a site's layer do not depend on its scale and run once per prompt. Memory: one number per
    row, and the activations of ``step_batch`` rows of tokens; never a matrix of the size of a weight.

    Args:
        view: the model; weights, flags and gradients are left as they are.
        targets: B prompts and the answers whose tokens are attributed.
        sites: the linear maps.
        options: how they are scored (a ``KNEHyperParams`` is one).

    Returns:
        ``{site.key: [rows or columns]}``, float32 (float64 for a float64 model), CPU.

    Raises:
        NeuronEditError: no sites, or scores that are not finite.
    """
    if not sites:
        raise NeuronEditError("attribution needs at least one module")
    axis, steps = options.neuron_axis, options.attribution_steps
    ordered = sorted(sites, key=lambda site: site.layer)
    groups = [ordered] if options.scaling == "joint" else [[site] for site in ordered]
    sums = {site.key: torch.zeros(site.size(axis)[0], dtype=view.compute_dtype) for site in sites}
    alphas, weights = nodes(options.attribution_rule, steps)
    count, prompts_at_once = len(targets.prompt_end), max(1, options.step_batch // steps)
    with frozen_parameters(view.model):
        for start in range(0, count, prompts_at_once):
            prompts = targets.rows(start, min(start + prompts_at_once, count))
            prefix = None
            for group in groups:
                # Run the blocks below the group once, from where the group before it ended.
                with torch.no_grad():
                    prefix = prefix_before(view, prompts.batch.inputs, group[0].layer, prefix)
                paths = _Paths(view, prompts, group, prefix, alphas, weights, options)
                by_unit = options.scaling == "neuron"
                points = range(len(prompts.batch.lengths) * steps * (paths.units if by_unit else 1))
                slopes = paths.slopes_alone if by_unit else paths.slopes
                parts = batch_results(points, options.step_batch, slopes, "attribution of rows")
                for site, site_parts in zip(group, zip(*parts)):
                    sums[site.key] += torch.stack(site_parts).sum(0)
    not_finite = [key for key, total in sums.items() if not bool(torch.isfinite(total).all())]
    if not_finite:
        raise NeuronEditError(
            f"the scores of {', '.join(not_finite)} are not finite; the model's weights or activations "
            "overflow, so load it in bfloat16 or float32"
        )
    return {key: total / count for key, total in sums.items()}


@dataclass(frozen=True)
class _Paths:
    """The paths from 0 to the weights of one group of modules, for b prompts: point i of prompt j has number
    ``j * steps + i``."""

    view: ModelView
    prompts: TargetTokens
    group: Sequence[Projection]
    prefix: Prefix | None
    alphas: Tensor
    weights: Tensor
    options: AttributionOptions

    @torch.enable_grad()
    def slopes(self, numbers: Sequence[int]) -> list[Tensor]:
        """``[units]`` per site of the group: weighted sum of dF/dg over the points ``numbers`` (CPU)."""
        axis, dtype = self.options.neuron_axis, self.view.compute_dtype
        points, steps = torch.tensor(numbers), len(self.alphas)
        alpha = self.alphas[points % steps].to(dtype)
        # The sum of dF/dg_k over the points is the slope of one probe that is added to g_k at all of them.
        probes, hooks = [], []
        for site in self.group:
            device = site.rows.device
            probe = torch.zeros(site.size(axis)[0], dtype=dtype, device=device, requires_grad=True)
            scaled = _scaled(self.view, site, axis, alpha.to(device)[:, None, None], probe)
            probes.append(probe)
            hooks.append((site.layer, site.module, scaled))
        total, scale = self._weighted_sum(points // steps, self.weights[points % steps], hooks)
        return [slope.cpu() * scale for slope in torch.autograd.grad(total, probes)]

    @property
    def units(self) -> int:
        """Rows or columns of the group's first module."""
        return self.group[0].size(self.options.neuron_axis)[0]

    @torch.enable_grad()
    def slopes_alone(self, numbers: Sequence[int]) -> list[Tensor]:
        """``[units]`` of the only module: weighted sum of dF/dg_k over the points ``numbers``, at which row k
        alone is scaled. Point i of row k of prompt j has number ``(j * units + k) * steps + i``."""
        (site,), dtype, device = self.group, self.view.compute_dtype, self.group[0].rows.device
        points, steps = torch.tensor(numbers), len(self.alphas)
        unit = (points // steps % self.units).to(device)
        alpha = self.alphas[points % steps].to(dtype).to(device)
        is_own = torch.nn.functional.one_hot(unit, self.units).to(dtype)[:, None, :]
        probe = torch.zeros(len(points), dtype=dtype, device=device, requires_grad=True)
        factor = 1.0 + is_own * (alpha - 1.0)[:, None, None]
        scaled = _scaled(self.view, site, self.options.neuron_axis, factor, is_own * probe[:, None, None])
        prompts, weights = points // (steps * self.units), self.weights[points % steps]
        total, scale = self._weighted_sum(prompts, weights, [(site.layer, site.module, scaled)])
        (slopes,) = torch.autograd.grad(total, probe)
        return [torch.zeros(self.units, dtype=dtype, device=device).index_add(0, unit, slopes).cpu() * scale]

    def _weighted_sum(self, rows: Tensor, weights: Tensor, hooks: list) -> tuple[Tensor, float]:
        """F of the prompts ``rows [n]`` with the scaled modules, times their weights, summed; and the scale
        by which it is divided, which is not 1 in half precision, where the gradient of a small F is 0."""
        batch, skip = self.prompts.batch, self.prefix and self.prefix.rows(rows)
        rows = rows.to(batch.input_ids.device)
        with Capture(self.view, [], "final_hidden", "final", skip=skip, edit_modules=hooks) as seen:
            self.view.model(
                input_ids=batch.input_ids[rows], attention_mask=batch.attention_mask[rows], use_cache=False
            )
        row, answer, logs = self.prompts.log_probabilities(self.view, seen.final_hidden, rows)
        if self.options.token_probability == "prefix":
            position = self.prompts.position[answer]
            earlier = (row[:, None] == row) & (position[:, None] >= position)
            logs = earlier.to(logs) @ logs
        is_half = seen.final_hidden.dtype in HALF
        logs = logs.to(self.view.compute_dtype)
        terms = logs.exp() * weights.to(logs)[row.to(logs.device)]
        scale = max(float(terms.detach().max()), 1e-30) if is_half else 1.0
        return (terms / scale if is_half else terms).sum(), scale


def _scaled(view: ModelView, site: Projection, axis: Axis, alpha: Tensor, probe: Tensor):
    """``f(output, input)``: the output with the site's weight times ``alpha [n, 1, 1 or units] + probe``
    (``[units]`` or ``[n, 1, units]``), and the bias unscaled."""
    bias, factor = site.bias(view), alpha + probe - 1.0
    bias = 0.0 if bias is None else bias[site.rows].to(probe.dtype)
    weight = site.weight(view) if axis == "input" else None

    def edit(output: Tensor, x: Tensor) -> Tensor:
        own = output[..., site.rows] if site.fused else output
        if axis == "output":
            change = factor * (own.to(factor.dtype) - bias)
        else:
            change = ((factor * x.to(factor.dtype)).to(weight.dtype) @ weight.T).to(factor.dtype)
        scaled = (own.to(factor.dtype) + change).to(output.dtype)
        return output.index_copy(-1, site.rows, scaled) if site.fused else scaled

    return edit
