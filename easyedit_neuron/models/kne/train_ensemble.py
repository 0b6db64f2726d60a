"""Training the ensemble: Adam on all its rows together, the model's weights left alone (Eq. 8-11).

``W + s dW`` has ``s = alpha / sqrt(n)``, n trained neurons in that weight, and dW is zero elsewhere. It is
computed as ``y + s dW x`` on the output of the weight's module, so weights are written only after training.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ...arch import Capture, ModelView, Projection, prefix_before, take
from ...arch.projections import Axis
from ...arch.tokens import Batch, encode, pad, subject_last_index
from ...arch.view import frozen_parameters
from ...arch.widen import row_parts
from ...attribution.targets import target_tokens
from ...edits.record import UnitDelta, unit_numbers
from ...edits.request import EditRequest
from ...errors import EditError
from ...optim import Objective, divergence, minimise

Members = Sequence[tuple[Projection, Tensor]]


@dataclass(frozen=True)
class TrainedEnsemble:
    """Result of the training.

    Attributes:
        vectors: ``{site.key: [n, d]}`` changes of the neurons' weights (already scaled), compute dtype.
        losses: ``{"loss", "nll", "kl": one value per evaluation}``; the last are those of the vectors.
        probability: ``exp(-mean NLL)`` of every request's new object with the vectors.
        stop: ``probability`` or ``steps``.
    """

    vectors: dict[str, Tensor]
    losses: dict[str, list[float]]
    probability: list[float]
    stop: str


def train(
    view: ModelView, tok, requests: Sequence[EditRequest], members: Members, hparams
) -> TrainedEnsemble:
    """``min over dW of mean_requests mean_tokens NLL(target) + kl_factor KL``, at most ``num_steps`` Adam
    steps from zero.

    The blocks below the lowest member run once. Only the positions in the loss reach the unembedding.

    Args:
        view, tok: model and tokenizer; neither is changed.
        requests: one batch, trained as one.
        members: the trained neurons.
        hparams: ``KNEHyperParams``.

    Raises:
        EditError: the loss is not finite at some step, or does not fall.
    """
    with frozen_parameters(view.model), torch.enable_grad():
        objective = _EnsembleObjective(view, tok, requests, members, hparams)
        minimise(objective, hparams.lr, hparams.num_steps + 1)
    curve = objective.curves["loss"]
    if objective.stop == "steps" and curve[-1] >= curve[0]:
        raise EditError(
            f"{_name(requests)}: training did not lower the loss, which went from {curve[0]:.4g} to "
            f"{curve[-1]:.4g} in {hparams.num_steps} steps; the model was left as it was. Change lr "
            f"({hparams.lr}) or alpha ({hparams.alpha})"
        )
    return TrainedEnsemble(
        {key: vector.detach() * objective.scales[key] for key, vector in objective.vectors.items()},
        objective.curves,
        objective.probability,
        objective.stop,
    )


class _EnsembleObjective(Objective):
    """The loss of a batch that is trained as one; gradients are summed over parts of the batch."""

    def __init__(self, view: ModelView, tok, requests: Sequence[EditRequest], members: Members, hparams):
        self.requests, self.hparams = requests, hparams
        axis = hparams.neuron_axis
        self.vectors = {
            site.key: torch.zeros(
                len(units),
                site.size(axis)[1],
                dtype=view.compute_dtype,
                device=site.rows.device,
                requires_grad=True,
            )
            for site, units in members
        }
        self.scales = {site.key: hparams.alpha / math.sqrt(len(units)) for site, units in members}
        self.parameters = list(self.vectors.values())
        self.hooks = []
        for site, units in members:
            units = units.to(site.rows.device)
            change = partial(_with_change, site, units, self.vectors[site.key], self.scales[site.key], axis)
            self.hooks.append((site.layer, site.module, change))
        lowest, size = min(site.layer for site, _ in members), hparams.train_batch_size
        self.parts = [
            _Part(view, tok, requests[start : start + size], lowest, hparams, len(requests))
            for start in range(0, len(requests), size)
        ]
        self.curves: dict[str, list[float]] = {"loss": [], "nll": [], "kl": []}
        self.probability: list[float] = []
        self.stop = "steps"

    def losses(self) -> Tensor:
        """[1], the loss; computes its gradients as well, part by part."""
        nlls, total_kl = [], 0.0
        for part in self.parts:
            nll, kl = part.losses(self.hooks)
            if torch.is_grad_enabled():
                (nll.sum() / len(self.requests) + self.hparams.kl_factor * kl).backward()
            nlls += nll.detach().tolist()
            total_kl += float(kl.detach())
        mean_nll = sum(nlls) / len(nlls)
        loss = mean_nll + self.hparams.kl_factor * total_kl
        for name, value in (("loss", loss), ("nll", mean_nll), ("kl", total_kl)):
            self.curves[name].append(value)
        self.probability = [math.exp(-nll) for nll in nlls]
        return torch.tensor([loss])

    def backward(self, losses: Tensor, active: list[bool]) -> None:
        """Do nothing: ``losses`` has computed the gradients."""

    def assess(self, losses: Tensor, step: int, last: bool) -> list[bool]:
        """Go on until every request's object is likely enough."""
        hparams = self.hparams
        if not math.isfinite(self.curves["loss"][-1]):
            raise EditError(
                f"{_name(self.requests)}: the loss is not finite at step {step}; the model was left as it "
                f"was. Lower lr ({hparams.lr}) or alpha ({hparams.alpha})"
            )
        if hparams.stop_probability is not None and min(self.probability) >= hparams.stop_probability:
            self.stop = "probability"
        return [self.stop == "steps" and not last]


class _Part:
    """The token rows of some requests: prompt and new object, then neutral prompts if the KL term uses them.

    Args:
        lowest: lowest trained layer; the blocks below run once.
        batch_size: requests of the whole batch, over which the KL term is averaged.
    """

    def __init__(
        self, view: ModelView, tok, requests: Sequence[EditRequest], lowest: int, hparams, batch_size: int
    ):
        self.view, self.direction, device = view, hparams.kl_direction, view.input_device
        prompts = [request.text for request in requests]
        objects = [request.target_new for request in requests]
        self.targets = target_tokens(tok, prompts, objects, device)
        self.batch, self.kl_places = self.targets.batch, None
        if hparams.kl_factor and hparams.kl_on == "neutral":
            subjects = [request.subject for request in requests]
            neutral = encode(tok, [hparams.kl_prompt.format(subject) for subject in subjects], device)
            self.batch = _stacked(self.batch, neutral, device)
            row = torch.arange(len(requests), 2 * len(requests), device=device)
            position = [subject_last_index(tok, hparams.kl_prompt, subject) for subject in subjects]
            share = torch.ones(len(requests), device=device)
            self.kl_places = row, torch.tensor(position, device=device), share
        elif hparams.kl_factor:
            row, position, share = self.targets.earlier_positions()
            self.kl_places = row, position, share.float()
        with torch.no_grad():
            self.prefix = prefix_before(view, self.batch.inputs, lowest)
            if self.kl_places:
                self.kl_share = self.kl_places[2] / batch_size
                self.log_p0 = view.logits(take(self._run([]), *self.kl_places[:2])).log_softmax(-1)

    def losses(self, hooks: list) -> tuple[Tensor, Tensor]:
        """(mean NLL of the new object's tokens per request ``[m]``, this part's share of the mean KL)."""
        targets, hidden = self.targets, self._run(hooks)
        logs = self.view.logits(take(hidden, targets.owner, targets.position)).log_softmax(-1)
        nll = -logs.gather(1, targets.token_ids.to(logs.device)[:, None])[:, 0]
        owner = targets.owner.to(nll.device)
        counts = torch.bincount(owner)
        nll = nll.new_zeros(len(counts)).index_add(0, owner, nll) / counts
        if not self.kl_places:
            return nll, nll.new_zeros(())
        after = self.view.logits(take(hidden, *self.kl_places[:2])).log_softmax(-1)
        kl = divergence(self.log_p0, after, self.direction)
        return nll, (kl * self.kl_share.to(after)).sum()

    def _run(self, hooks: list) -> Tensor:
        with Capture(self.view, [], "final_hidden", "final", skip=self.prefix, edit_modules=hooks) as seen:
            self.view.model(**self.batch.inputs, use_cache=False)
        return seen.final_hidden


def _with_change(
    site: Projection, units: Tensor, vectors: Tensor, scale: float, axis: Axis, output: Tensor, inputs: Tensor
) -> Tensor:
    """The output of a linear map with the change added to its neurons."""
    if axis == "output":
        rows, change = site.rows[units], inputs.to(vectors.dtype) @ vectors.T
    else:
        rows, change = site.rows, inputs[..., units].to(vectors.dtype) @ vectors
    return output.index_add(-1, rows, (scale * change).to(output.dtype))


def unit_deltas(
    view: ModelView, members: Members, vectors: Mapping[str, Tensor], axis: Axis
) -> dict[str, UnitDelta]:
    """The vectors as changes of parameters; maps in one fused parameter share a delta."""
    by_parameter: dict[str, list[tuple[Projection, Tensor]]] = {}
    for site, units in members:
        by_parameter.setdefault(site.parameter, []).append((site, units))
    deltas = {}
    for name, members_here in by_parameter.items():
        shape, parts = tuple(view.matrix(name).shape), 1
        counts = {site.name: len(units) for site, units in members_here}
        info = {"layer": members_here[0][0].layer, "neurons": counts}
        if axis == "output":
            parts = row_parts(view, name)
            rows = torch.cat([site.rows.cpu()[units] for site, units in members_here])
            units, order = unit_numbers(rows, parts, shape[0]).sort()
            changes = torch.cat([vectors[site.key].cpu() for site, _ in members_here])[order]
        else:
            units = torch.cat([units for _, units in members_here]).unique()
            changes = torch.zeros(len(units), shape[0], dtype=vectors[members_here[0][0].key].dtype)
            for site, site_units in members_here:
                place = torch.searchsorted(units, site_units)[:, None]
                changes[place, site.rows.cpu()] += vectors[site.key].cpu()
        deltas[name] = UnitDelta(units, changes, axis, shape, info, parts)
    return deltas


def _name(requests: Sequence[EditRequest]) -> str:
    if len(requests) == 1:
        return f"request {requests[0].index} ({requests[0].text!r})"
    return f"the batch of {len(requests)} requests"


def _stacked(first: Batch, second: Batch, device) -> Batch:
    return pad(
        [
            batch.input_ids[row, :length].tolist()
            for batch in (first, second)
            for row, length in enumerate(batch.lengths.tolist())
        ],
        device,
    )
