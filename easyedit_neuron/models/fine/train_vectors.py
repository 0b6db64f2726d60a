"""FiNE's vectors: one per chosen neuron, added to its column of the down projection, trained by Adam (Eq. 4
to 7).

The vectors z of a layer add ``sum_i q_i z_i`` to the output of its down projection at every token; q are the
layer's activations. Hooks add this during training; no weight is changed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from ...arch.capture import Capture, Prefix, take
from ...arch.view import ModelView, frozen_parameters
from ...attribution import TargetTokens
from ...errors import EditError
from ...optim import Objective, divergence, minimise
from .locate import Neurons
from .rows import Row, padded

TERMS = ("nll", "kl", "penalty", "norm")


@dataclass(frozen=True)
class TrainedVectors:
    """Result for one request.

    Attributes:
        vectors: [N, d_model], one for each of its neurons, in their order.
        losses: total loss before every step, and at the end.
        first, last: weighted terms of the first and the last loss.
        stop: ``known`` (nothing to train), ``early_stop_prob`` or ``epochs``.
        probability: of the new object at the end: of its least likely token (``edit_loss: max``), or of all
            its tokens.
    """

    vectors: Tensor
    losses: list[float]
    first: dict[str, float]
    last: dict[str, float]
    stop: str
    probability: float

    @property
    def steps(self) -> int:
        """Number of Adam steps."""
        return len(self.losses) - 1


def train(view: ModelView, rows: list[Row], neurons: list[Neurons], hparams) -> list[TrainedVectors]:
    """Train the vectors of m requests on the present weights, independently but in shared forward passes.

    ``loss = NLL(object) + alpha KL(prompt) + beta (-log(1 - p(object | prompt, object))) + gamma |Z|``. Every
    request has its own loss, Adam moments and stop, so a batch gives the results of single requests except
    for rounding. KL is the mean over all positions of the prompt except the last (0 for a prompt of a single
    token, where the release divides by 0). The penalty is computed at the position after the object. A step
    starts at the output of the lowest FFN with a chosen neuron, whose activations no vector changes.

    Args:
        view: the model; its weights and flags are as before afterwards.
        rows: prompts and objects.
        neurons: the chosen neurons of every row.
        hparams: ``FiNEHyperParams``.

    Returns:
        m TrainedVectors.

    Raises:
        EditError: a loss that is not finite, or an NLL that does not fall.
    """
    with frozen_parameters(view.model), torch.enable_grad():
        objective = _VectorObjective(view, rows, neurons, hparams)
        minimise(objective, hparams.lr, hparams.epochs + 1)
    return objective.results


@dataclass(frozen=True)
class _Slots:
    """The vectors of one layer, [m, w], where w is the largest number of them in a request.

    Attributes:
        unit: number of the neuron.
        slot: number of its vector in the request.
        is_used: 1 for a vector, 0 for padding.
    """

    unit: Tensor
    slot: Tensor
    is_used: Tensor

    @classmethod
    def of(cls, neurons: list[Neurons], layer: int, device) -> _Slots:
        places = [(located.layers == layer).nonzero().flatten() for located in neurons]
        width = max(len(place) for place in places)
        table = torch.zeros(3, len(neurons), width, dtype=torch.long)
        for row, (located, place) in enumerate(zip(neurons, places)):
            table[:, row, : len(place)] = torch.stack([located.units[place], place, torch.ones_like(place)])
        return cls(*table.to(device))

    def columns(self, key: Tensor) -> Tensor:
        """``key[:, :, unit]``, [m, T, w] of the activations [m, T, d_ff]."""
        return key.gather(2, self.unit[:, None].expand(-1, key.shape[1], -1))


@dataclass(frozen=True)
class _LiveRequests:
    """The m requests that are still trained.

    Attributes:
        numbers: their numbers in the batch; ``index`` is the same as a tensor.
        targets: their rows.
        kl: row, position and share [K] of the positions in the KL term.
        prefix: the unedited pass up to the output of the lowest block with chosen neurons.
        q: [m, T, w] activations of the chosen neurons of that block.
        ffn_out: [m, T, d_model] output of its FFN, if a norm or a factor follows it.
        slots: layer -> their vectors.
        log_p0: [K, V] log probabilities of the unedited model at the positions of ``kl``; None until the
            first step, whose vectors are 0, has computed them.
    """

    numbers: list[int]
    index: Tensor
    targets: TargetTokens
    kl: tuple[Tensor, Tensor, Tensor]
    prefix: Prefix
    q: Tensor
    ffn_out: Tensor | None
    slots: dict[int, _Slots]
    log_p0: Tensor | None = None


class _VectorObjective(Objective):
    """The loss of one batch of requests; ``results`` are complete after ``minimise``."""

    def __init__(self, view: ModelView, rows: list[Row], neurons: list[Neurons], hparams):
        self.view, self.rows, self.neurons, self.hparams = view, rows, neurons, hparams
        self.layers = sorted({layer for located in neurons for layer in located.layers.tolist()})
        self.lowest = self.layers[0]
        self.branch = view.ffn_branch(self.lowest)
        dtype = torch.bfloat16 if hparams.vector_dtype == "bfloat16" else view.compute_dtype
        shape = len(rows), max(len(located) for located in neurons), view.d_model
        self.vectors = torch.zeros(shape, dtype=dtype, device=view.device_of(self.lowest), requires_grad=True)
        self.parameters = [self.vectors]
        chance = hparams.early_stop_prob
        self.stop_nll = -math.inf if chance is None else -math.log(chance)
        self.curves: list[list[float]] = [[] for _ in rows]
        self.first: list[dict[str, float]] = [{} for _ in rows]
        self.results: list[TrainedVectors | None] = [None for _ in rows]
        self.live = self._clean_pass()

    @torch.no_grad()
    def _clean_pass(self) -> _LiveRequests:
        targets = padded(self.rows, self.view.input_device)
        want = {"key"} | ({"ffn_out"} if self.branch is not None else set())
        with Capture(self.view, [self.lowest], want, stop_after=self.lowest, prefix_of=self.lowest) as seen:
            self.view.model(**targets.batch.inputs, use_cache=False)
        slots = self._slots(range(len(self.rows)))
        q = slots[self.lowest].columns(seen.key[self.lowest])
        index = torch.arange(len(self.rows), device=self.vectors.device)
        return _LiveRequests(
            list(range(len(self.rows))),
            index,
            targets,
            targets.earlier_positions(),
            seen.prefix,
            q,
            seen.ffn_out.get(self.lowest),
            slots,
        )

    def _slots(self, numbers: Iterable[int]) -> dict[int, _Slots]:
        neurons = [self.neurons[number] for number in numbers]
        return {layer: _Slots.of(neurons, layer, self.view.device_of(layer)) for layer in self.layers}

    def losses(self) -> Tensor:
        """Losses [m] of the live requests; stores their terms for ``assess``."""
        terms = self._terms(self._hidden())
        self.terms = terms.detach()
        return terms.sum(0)

    def _hidden(self) -> Tensor:
        """Input of the final norm with the vectors, [m, T, d_model]."""
        hooks = [
            (
                layer,
                self.view.down_weight_name(layer).removesuffix(".weight"),
                partial(self._with_vectors, layer),
            )
            for layer in self.layers[1:]
        ]
        with Capture(
            self.view,
            [],
            {"final_hidden"},
            stop_after="final",
            edit_layer_out={self.lowest: self._with_lowest_vectors},
            edit_modules=hooks,
            skip=self.live.prefix,
        ) as seen:
            self.view.model(**self.live.targets.batch.inputs, use_cache=False)
        return seen.final_hidden

    def _added(self, layer: int, q: Tensor) -> Tensor:
        """What a layer's vectors add to the output of its down projection; [m, T, d_model], their dtype."""
        slots = self.live.slots[layer]
        vectors = self.vectors[self.live.index[:, None], slots.slot.to(self.vectors.device)].to(q.device)
        return q.to(vectors.dtype) @ (vectors * slots.is_used[..., None])

    def _with_vectors(self, layer: int, output: Tensor, key: Tensor) -> Tensor:
        return output + self._added(layer, self.live.slots[layer].columns(key)).to(output.dtype)

    def _with_lowest_vectors(self, hidden: Tensor) -> Tensor:
        added = self._added(self.lowest, self.live.q).to(hidden.dtype)
        if self.live.ffn_out is not None:
            # A norm or a factor follows the FFN: the change of its output reaches the block's output.
            added = self.branch(self.live.ffn_out + added) - self.branch(self.live.ffn_out)
        return hidden + added

    def _terms(self, hidden: Tensor) -> Tensor:
        """[4, m]: NLL, KL, penalty and norm of the live requests, weighted."""
        hparams, targets, live = self.hparams, self.live.targets, self.live
        kl_row, kl_position, kl_share = live.kl
        rows = torch.arange(len(live.numbers), device=targets.prompt_end.device)
        preserved = take(hidden, kl_row, kl_position)[: None if hparams.alpha else 0]
        answers = take(hidden, targets.owner, targets.position)
        behind = take(hidden, rows, targets.batch.last)[: None if hparams.beta else 0]
        # Only the positions in the loss reach the unembedding, in one product.
        logits = self.view.logits(torch.cat([preserved, answers, behind]))
        preserved, answers, behind = logits.split([len(preserved), len(answers), len(behind)])
        device, zero = logits.device, logits.new_zeros(len(rows))
        owner, ids = targets.owner.to(device), targets.token_ids.to(device)

        nll = functional.cross_entropy(answers, ids, reduction="none")
        if hparams.edit_loss == "sum":
            nll = zero.index_add(0, owner, nll)
        else:
            nll = _largest(zero, owner, nll)
        kl = penalty = zero
        if len(preserved):
            after = preserved.log_softmax(-1)
            if live.log_p0 is None:
                self.live = replace(live, log_p0=after.detach())
            kl = divergence(self.live.log_p0, after, hparams.kl_direction)
            kl = zero.index_add(0, kl_row.to(device), kl * kl_share.to(device, logits.dtype))
        if len(behind):
            log_p = behind.log_softmax(-1)[owner, ids].clamp_max(-torch.finfo(logits.dtype).eps)
            surprise = -torch.log(-torch.expm1(log_p))
            if hparams.penalty_on == "first":
                surprise = surprise.where(targets.is_first.to(device), 0.0)
            penalty = _largest(zero, owner, surprise)
        # unused vectors are 0
        norm = self.vectors[live.index].flatten(1).norm(dim=1).to(device, logits.dtype)
        return torch.stack([nll, hparams.alpha * kl, hparams.beta * penalty, hparams.gamma * norm])

    def assess(self, losses: Tensor, step: int, last: bool) -> list[bool]:
        """Go on with the requests whose object is not likely enough; store the results of the others."""
        active = []
        for number, values in zip(self.live.numbers, self.terms.T.tolist()):
            terms = dict(zip(TERMS, values))
            self.curves[number].append(self._finite(number, step, terms))
            self.first[number] = self.first[number] or terms
            active.append(not last and terms["nll"] >= self.stop_nll)
            if not active[-1]:
                stop = "epochs" if terms["nll"] >= self.stop_nll else "early_stop_prob"
                self.results[number] = self._result(number, terms, stop if step else "known")
        return active

    def _finite(self, number: int, step: int, terms: dict[str, float]) -> float:
        total = sum(terms.values())
        if not math.isfinite(total):
            listed = ", ".join(f"{name} {value:.3g}" for name, value in terms.items())
            raise EditError(
                f"{self.rows[number].name} diverged: after {step} steps its loss is not finite "
                f"({listed}); lower 'lr', or load the model in bfloat16 or float32 if it is in float16. "
                "Nothing was changed"
            )
        return total

    def _result(self, number: int, terms: dict[str, float], stop: str) -> TrainedVectors:
        vectors = self.vectors[number, : len(self.neurons[number])].detach().clone()
        first, nll = self.first[number], terms["nll"]
        result = TrainedVectors(vectors, self.curves[number], first, terms, stop, math.exp(-nll))
        if result.steps and not nll < first["nll"]:
            raise EditError(
                f"{self.rows[number].name}: training did not lower the NLL of its new object, which is "
                f"{nll:.3g} after {result.steps} steps and was {first['nll']:.3g} before; change 'lr' or "
                "'neuron_num', or lower 'gamma', 'alpha' or 'beta'. Nothing was changed"
            )
        return result

    def keep(self, active: list[bool]) -> None:
        """Drop the requests that have stopped."""
        live = self.live
        places = [place for place, is_active in enumerate(active) if is_active]
        numbers = [live.numbers[place] for place in places]
        targets = padded([self.rows[number] for number in numbers], self.view.input_device)
        width, index, slots = targets.batch.input_ids.shape[1], torch.tensor(places), self._slots(numbers)

        def select(states: Tensor) -> Tensor:
            # Cut off the columns that are padding in all of these requests.
            return states[index.to(states.device), :width]

        log_p0 = live.log_p0
        if log_p0 is not None:
            log_p0 = log_p0[torch.tensor(active)[live.kl[0].cpu()].to(log_p0.device)]
        self.live = _LiveRequests(
            numbers,
            live.index[index.to(live.index.device)],
            targets,
            targets.earlier_positions(),
            replace(live.prefix, hidden=select(live.prefix.hidden)),
            select(live.q)[..., : slots[self.lowest].unit.shape[1]],
            None if live.ffn_out is None else select(live.ffn_out),
            slots,
            log_p0,
        )


def _largest(zero: Tensor, owner: Tensor, values: Tensor) -> Tensor:
    """Largest of the values (none below 0) of each owner."""
    return zero.scatter_reduce(0, owner, values, "amax")
