"""Training the ensemble: Adam on all its rows together, the model's weights left alone (Eq. 8-11).

``W + s dW`` with ``s = alpha / sqrt(n)``, n neurons in that weight and dW zero outside of them, is run as ``y
+ s dW x`` on the output of the weight's module, so that nothing is written before the edit is known to be
good.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...arch import Capture, ModelView, Projection, prefix_before, take
from ...arch.capture import Prefix
from ...arch.frozen import frozen_parameters
from ...arch.projections import Axis
from ...arch.tokens import Batch, encode, pad, subject_last_index
from ...attribution.targets import target_tokens
from ...edits.record import UnitDelta
from ...edits.request import EditRequest
from ...errors import EditError
from ...optim.divergence import divergence

Members = Sequence[tuple[Projection, Tensor]]


@dataclass(frozen=True)
class Fit:
    """What training gave.

    Attributes:
        vectors: ``{site.key: [n, d]}`` changes of the neurons' weights (scaled, as they are added), compute
            dtype.
        losses: ``{"loss", "nll", "kl": one value per evaluation}``; the last belongs to the vectors.
        probability: ``exp(-mean NLL)`` of every request's new object with the vectors.
        stop: ``probability`` or ``steps``.
    """

    vectors: dict[str, Tensor]
    losses: dict[str, list[float]] = field(default_factory=dict)
    probability: list[float] = field(default_factory=list)
    stop: str = "steps"


@torch.enable_grad()
def train(view: ModelView, tok, requests: Sequence[EditRequest], members: Members, hparams) -> Fit:
    """``min over dW of mean_requests mean_tokens NLL(target) + kl_factor KL``, at most ``num_steps`` Adam
    steps from zero.

    The blocks below the lowest member run once; only the positions in the loss reach the unembedding.

    Args:
        view, tok: model and tokenizer; neither is changed.
        requests: one batch, trained as one.
        members: what is trained.
        hparams: ``KNEHyperParams``.

    Raises:
        EditError: the loss is not finite at some step, or is at the end not below that at the start.
    """
    lowest = min(site.layer for site, _ in members)
    vectors = {
        site.key: torch.zeros(
            len(units),
            site.size(hparams.neuron_axis)[1],
            dtype=view.compute_dtype,
            device=site.rows.device,
            requires_grad=True,
        )
        for site, units in members
    }
    scales = {site.key: hparams.alpha / math.sqrt(len(units)) for site, units in members}
    edits = [
        (
            site.layer,
            site.module,
            _added(site, units, vectors[site.key], scales[site.key], hparams.neuron_axis),
        )
        for site, units in members
    ]
    size = hparams.train_batch_size
    with frozen_parameters(view.model):
        parts = [
            _Part(view, tok, requests[i : i + size], lowest, hparams, len(requests))
            for i in range(0, len(requests), size)
        ]
        opt = torch.optim.Adam(list(vectors.values()), lr=hparams.lr)
        losses: dict[str, list[float]] = {"loss": [], "nll": [], "kl": []}
        for step in range(hparams.num_steps + 1):
            last = step == hparams.num_steps
            opt.zero_grad()
            nlls, kl = [], 0.0
            for part in parts:
                nll, divergence = part.losses(edits)
                if not last:
                    (nll.sum() / len(requests) + hparams.kl_factor * divergence).backward()
                nlls += nll.detach().tolist()
                kl += float(divergence.detach())
            nll = sum(nlls) / len(nlls)
            for name, value in (("loss", nll + hparams.kl_factor * kl), ("nll", nll), ("kl", kl)):
                losses[name].append(value)
            if not math.isfinite(losses["loss"][-1]):
                raise EditError(
                    f"{_which(requests)}: the loss is not finite at step {step}; the model was left as it was. "
                    f"Lower lr ({hparams.lr}) or alpha ({hparams.alpha})"
                )
            likely = [math.exp(-value) for value in nlls]
            if hparams.stop_probability is not None and min(likely) >= hparams.stop_probability:
                return _fit(vectors, scales, losses, likely, "probability")
            if not last:
                opt.step()
    if losses["loss"][-1] >= losses["loss"][0]:
        raise EditError(
            f"{_which(requests)}: training got nowhere, the loss went from {losses['loss'][0]:.4g} to "
            f"{losses['loss'][-1]:.4g} in {hparams.num_steps} steps; the model was left as it was. Change lr "
            f"({hparams.lr}) or alpha ({hparams.alpha})"
        )
    return _fit(vectors, scales, losses, likely, "steps")


def unit_deltas(
    view: ModelView, members: Members, vectors: Mapping[str, Tensor], axis: Axis
) -> dict[str, UnitDelta]:
    """The vectors as changes of parameters; those of several maps in one fused parameter are put together."""
    grouped: dict[str, list[tuple[Projection, Tensor]]] = {}
    for site, units in members:
        grouped.setdefault(site.parameter, []).append((site, units))
    found = {}
    for name, parts in grouped.items():
        shape = tuple(view.matrix(name).shape)
        info = {"layer": parts[0][0].layer, "neurons": {site.name: len(units) for site, units in parts}}
        if axis == "output":
            units, order = torch.cat([site.rows.cpu()[units] for site, units in parts]).sort()
            changes = torch.cat([vectors[site.key].cpu() for site, _ in parts])[order]
        else:
            units = torch.cat([units for _, units in parts]).unique()
            changes = torch.zeros(len(units), shape[0], dtype=vectors[parts[0][0].key].dtype)
            for site, mine in parts:
                changes[torch.searchsorted(units, mine)[:, None], site.rows.cpu()] += vectors[site.key].cpu()
        found[name] = UnitDelta(units, changes, axis, shape, info)
    return found


def _fit(vectors, scales, losses, probability, stop) -> Fit:
    return Fit(
        {key: vector.detach() * scales[key] for key, vector in vectors.items()}, losses, probability, stop
    )


def _which(requests: Sequence[EditRequest]) -> str:
    if len(requests) == 1:
        return f"request {requests[0].index} ({requests[0].text!r})"
    return f"the batch of {len(requests)} requests"


def _added(site: Projection, units: Tensor, vectors: Tensor, scale: float, axis: Axis):
    """``f(output, input)``: what the map gives with the change added to its neurons."""
    units = units.to(site.rows.device)
    rows = site.rows[units] if axis == "output" else site.rows

    def edit(output: Tensor, x: Tensor) -> Tensor:
        read = x if axis == "output" else x[..., units]
        change = read.to(vectors.dtype) @ (vectors.T if axis == "output" else vectors)
        return output.index_add(-1, rows, (scale * change).to(output.dtype))

    return edit


class _Part:
    """The token rows of some requests: prompt and new object, then the neutral prompts if the KL term is
    about these."""

    def __init__(
        self, view: ModelView, tok, requests: Sequence[EditRequest], lowest: int, hparams, whole: int
    ):
        self.view, self.direction = view, hparams.kl_direction
        device = view.input_device
        self.targets = target_tokens(
            tok, [r.text for r in requests], [r.target_new for r in requests], device
        )
        self.batch, places = self.targets.batch, []
        if hparams.kl_factor and hparams.kl_on == "neutral":
            neutral = encode(tok, [hparams.kl_prompt.format(r.subject) for r in requests], device)
            places = [
                (len(requests) + i, subject_last_index(tok, hparams.kl_prompt, request.subject), 1.0)
                for i, request in enumerate(requests)
            ]
            self.batch = _joined(self.batch, neutral, device)
        elif hparams.kl_factor:
            ends = self.targets.prompt_end.tolist()
            places = [(row, at, 1.0 / end) for row, end in enumerate(ends) for at in range(end)]
        self.kept = [torch.tensor(column, device=device) for column in zip(*places)]
        with torch.no_grad():
            self.prefix: Prefix | None = prefix_before(view, self.batch.inputs, lowest)
            if self.kept:
                self.kept[2] = self.kept[2] / whole  # the mean over the requests of all parts
                self.before = view.logits(take(self._run([]), *self.kept[:2])).log_softmax(-1)

    def losses(self, edits: list) -> tuple[Tensor, Tensor]:
        """(mean NLL of the new object's tokens per request ``[m]``, this part's share of the mean KL) under
        the edits."""
        targets, hidden = self.targets, self._run(edits)
        logs = self.view.logits(take(hidden, targets.owner, targets.position)).log_softmax(-1)
        nll = -logs.gather(1, targets.token_ids.to(logs.device)[:, None])[:, 0]
        owner = targets.owner.to(nll.device)
        counts = torch.bincount(owner)
        nll = nll.new_zeros(len(counts)).index_add(0, owner, nll) / counts
        if not self.kept:
            return nll, nll.new_zeros(())
        after = self.view.logits(take(hidden, *self.kept[:2])).log_softmax(-1)
        return nll, (divergence(self.before, after, self.direction) * self.kept[2].to(after)).sum()

    def _run(self, edits: list) -> Tensor:
        with Capture(self.view, [], "final_hidden", "final", skip=self.prefix, edit_modules=edits) as seen:
            self.view.model(**self.batch.inputs, use_cache=False)
        return seen.final_hidden


def _joined(first: Batch, second: Batch, device) -> Batch:
    return pad(
        [
            batch.input_ids[row, :length].tolist()
            for batch in (first, second)
            for row, length in enumerate(batch.lengths.tolist())
        ],
        device,
    )
