"""The vectors of FiNE: one per chosen neuron, added to its column of the down projection, trained by Adam
(paper, Eq. 4 to 7).

What the vectors z of a layer add to the output of its down projection is ``sum_i q_i z_i`` at every token, q
being the layer's activations: hooks add that, and no weight is touched.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from ...arch.capture import Capture, Prefix
from ...arch.frozen import frozen_parameters
from ...arch.states import take
from ...arch.view import ModelView
from ...errors import EditError
from ...optim.divergence import divergence
from .locate import Neurons
from .rows import Places, Row

TERMS = ("nll", "kl", "penalty", "norm")


@dataclass(frozen=True)
class Found:
    """Result for one request.

    Attributes:
        vectors: [N, d_model], one for each of its neurons, in their order.
        losses: total loss before every step, and at the end.
        first, last: the terms of the first and the last of these, weighted as they stand in the loss.
        stop: ``known`` (nothing to train), ``early_stop_prob`` or ``epochs``.
        probability: of the new object at the end: of its least likely token (``edit_loss: max``), or of all
            of it.
    """

    vectors: Tensor
    losses: list[float]
    first: dict[str, float]
    last: dict[str, float]
    stop: str
    probability: float

    @property
    def steps(self) -> int:
        """Adam steps that were made."""
        return len(self.losses) - 1


def train(view: ModelView, rows: list[Row], neurons: list[Neurons], hparams) -> list[Found]:
    """Trains the vectors of m requests on the weights as they are, each for itself, in one forward pass of
    all.

    ``loss = NLL(object) + alpha KL(prompt) + beta (-log(1 - p(object | prompt, object))) + gamma |Z|``. Every
    request has its own loss, Adam moments and stop, so that a batch gives what single requests give but for
    rounding; who has stopped leaves it. KL is the mean over all positions of the prompt but the last (0 for a
    prompt of a single token, where the release divides by 0), the penalty is taken behind the object. A step
    runs what lies above the first FFN that holds a chosen neuron; that FFN's own activations no vector
    changes.

    Args:
        view: the model; its weights and flags are as before afterwards.
        rows: prompts and objects.
        neurons: the chosen neurons of every row.
        hparams: ``FiNEHyperParams``.

    Returns:
        m Found.

    Raises:
        EditError: a loss that is not finite, or an NLL at the end that is not below that at the start.
    """
    with frozen_parameters(view.model), torch.enable_grad():
        return _Training(view, rows, neurons, hparams).run()


@dataclass(frozen=True)
class _Slots:
    """The vectors of one layer, [m, w], w the most that a request has there.

    Attributes:
        unit: number of the neuron.
        slot: number of its vector among the request's.
        real: 1 where there is one, 0 where a request has fewer.
    """

    unit: Tensor
    slot: Tensor
    real: Tensor

    @classmethod
    def of(cls, neurons: list[Neurons], layer: int, device) -> "_Slots":
        places = [(n.layers == layer).nonzero().flatten() for n in neurons]
        width = max(len(place) for place in places)
        table = torch.zeros(3, len(neurons), width, dtype=torch.long)
        for row, (one, place) in enumerate(zip(neurons, places)):
            table[:, row, : len(place)] = torch.stack([one.units[place], place, torch.ones_like(place)])
        return cls(*table.to(device))

    def columns(self, key: Tensor) -> Tensor:
        """``key[:, :, unit]``, [m, T, w] of the activations [m, T, d_ff]."""
        return key.gather(2, self.unit[:, None].expand(-1, key.shape[1], -1))


@dataclass(frozen=True)
class _Live:
    """The requests that are still trained.

    Attributes:
        numbers: list of their numbers in the batch, and ``index`` the same as a tensor.
        places: their rows.
        prefix: everything up to the output of the first block with chosen neurons, as without them.
        q: [m, T, w] activations of the chosen neurons of that block.
        ffn_out: [m, T, d_model] output of its FFN, where a norm lies behind it.
        slots: layer -> their vectors.
        before: [K, V] log-probabilities of the unedited model where they shall be kept; None until the first
            step, whose vectors are 0, has them.
    """

    numbers: list[int]
    index: Tensor
    places: Places
    prefix: Prefix
    q: Tensor
    ffn_out: Tensor | None
    slots: dict[int, _Slots]
    before: Tensor | None = None


class _Training:
    """Adam on the vectors of one batch of requests."""

    def __init__(self, view: ModelView, rows: list[Row], neurons: list[Neurons], hparams):
        self.view, self.rows, self.neurons, self.hparams = view, rows, neurons, hparams
        self.layers = sorted({layer for one in neurons for layer in one.layers.tolist()})
        self.lowest = self.layers[0]
        self.norm = view.post_ffn_norm(self.lowest)
        dtype = torch.bfloat16 if hparams.vector_dtype == "bfloat16" else view.compute_dtype
        shape = len(rows), max(len(one) for one in neurons), view.d_model
        self.vectors = torch.zeros(shape, dtype=dtype, device=view.device_of(self.lowest), requires_grad=True)
        self.live = self._clean_pass()

    @torch.no_grad()
    def _clean_pass(self) -> _Live:
        places = Places.of(self.rows, self.view.input_device)
        want = {"key"} | ({"ffn_out"} if self.norm is not None else set())
        with Capture(self.view, [self.lowest], want, stop_after=self.lowest, prefix_of=self.lowest) as seen:
            self.view.model(**places.batch.inputs, use_cache=False)
        slots = self._slots(range(len(self.rows)))
        index = torch.arange(len(self.rows), device=self.vectors.device)
        return _Live(
            list(range(len(self.rows))),
            index,
            places,
            seen.prefix,
            slots[self.lowest].columns(seen.key[self.lowest]),
            seen.ffn_out.get(self.lowest),
            slots,
        )

    def _slots(self, numbers) -> dict[int, _Slots]:
        neurons = [self.neurons[number] for number in numbers]
        return {layer: _Slots.of(neurons, layer, self.view.device_of(layer)) for layer in self.layers}

    def run(self) -> list[Found]:
        """Found of the requests, in their order."""
        losses: list[list[float]] = [[] for _ in self.rows]
        first: list[dict[str, float]] = [{} for _ in self.rows]
        found: list[Found | None] = [None] * len(self.rows)
        chance = self.hparams.early_stop_prob
        enough = -math.inf if chance is None else -math.log(chance)
        opt = torch.optim.Adam([self.vectors], lr=self.hparams.lr)
        for step in range(self.hparams.epochs + 1):
            ends = step == self.hparams.epochs
            with torch.set_grad_enabled(not ends):
                terms = self._terms()
                loss = terms.sum(0)
            values, stays = terms.detach().T.tolist(), []
            for number, value in zip(self.live.numbers, values):
                parts = dict(zip(TERMS, value))
                losses[number].append(self._finite(number, step, parts))
                first[number] = first[number] or parts
                stays.append(not ends and parts["nll"] >= enough)
                if not stays[-1]:
                    stop = ("epochs" if parts["nll"] >= enough else "early_stop_prob") if step else "known"
                    mine = self.vectors[number, : len(self.neurons[number])].detach().clone()
                    found[number] = self._descended(
                        number,
                        Found(mine, losses[number], first[number], parts, stop, math.exp(-parts["nll"])),
                    )
            if not any(stays):
                break
            opt.zero_grad()
            loss[torch.tensor(stays, device=loss.device)].sum().backward()
            opt.step()
            if not all(stays):
                self.live = self._leave(stays)
        return found

    def _finite(self, number: int, step: int, parts: dict[str, float]) -> float:
        total = sum(parts.values())
        if not math.isfinite(total):
            told = ", ".join(f"{name} {value:.3g}" for name, value in parts.items())
            raise EditError(
                f"{self.rows[number].name} diverged: after {step} steps its loss is not finite ({told}); "
                "lower 'lr', or load the model in bfloat16 or float32 if it is in float16. Nothing was changed"
            )
        return total

    def _descended(self, number: int, found: Found) -> Found:
        before, after = found.first["nll"], found.last["nll"]
        if found.steps and not after < before:
            raise EditError(
                f"{self.rows[number].name} got nowhere: the NLL of its new object is {after:.3g} after {found.steps} "
                f"steps and was {before:.3g} before; change 'lr' or 'neuron_num', or lower 'gamma', 'alpha' or "
                "'beta'. Nothing was changed"
            )
        return found

    # ---- one step
    # ------------------------------------------------------------------------------------------------

    def _added(self, layer: int, q: Tensor) -> Tensor:
        """What a layer's vectors add to the output of its down projection; [m, T, d_model] in their dtype."""
        slots = self.live.slots[layer]
        mine = self.vectors[self.live.index[:, None], slots.slot.to(self.vectors.device)].to(q.device)
        return q.to(mine.dtype) @ (mine * slots.real[..., None])

    def _at(self, layer: int):
        def add(output: Tensor, key: Tensor) -> Tensor:
            return output + self._added(layer, self.live.slots[layer].columns(key)).to(output.dtype)

        return add

    def _at_lowest(self, hidden: Tensor) -> Tensor:
        added = self._added(self.lowest, self.live.q).to(hidden.dtype)
        if self.live.ffn_out is not None:  # what reaches the block's output is not what is added to the FFN's
            added = self.norm(self.live.ffn_out + added) - self.norm(self.live.ffn_out)
        return hidden + added

    def _hidden(self) -> Tensor:
        """Input of the final norm with the vectors, [m, T, d_model]."""
        edits = [
            (layer, self.view.down_weight_name(layer).removesuffix(".weight"), self._at(layer))
            for layer in self.layers[1:]
        ]
        with Capture(
            self.view,
            [],
            {"final_hidden"},
            stop_after="final",
            edit_layer_out={self.lowest: self._at_lowest},
            edit_modules=edits,
            skip=self.live.prefix,
        ) as seen:
            self.view.model(**self.live.places.batch.inputs, use_cache=False)
        return seen.final_hidden

    def _terms(self) -> Tensor:
        """[4, m]: NLL, KL, penalty and norm of the live requests, weighted."""
        hparams, places, hidden = self.hparams, self.live.places, self._hidden()
        rows = torch.arange(len(self.live.numbers), device=places.prompt_end.device)
        kept = take(hidden, places.kept_row, places.kept_at)[: None if hparams.alpha else 0]
        answers = take(hidden, places.answer_row, places.answer_at)
        behind = take(hidden, rows, places.batch.last)[: None if hparams.beta else 0]
        # only what is in the loss reaches the unembedding, and in one product
        logits = self.view.logits(torch.cat([kept, answers, behind]))
        kept, answers, behind = logits.split([len(kept), len(answers), len(behind)])
        at, owner, ids = (
            logits.device,
            places.answer_row.to(logits.device),
            places.answer_id.to(logits.device),
        )
        zero = logits.new_zeros(len(rows))

        nll = functional.cross_entropy(answers, ids, reduction="none")
        nll = zero.index_add(0, owner, nll) if hparams.edit_loss == "sum" else _largest(zero, owner, nll)
        kl = penalty = zero
        if len(kept):
            after = kept.log_softmax(-1)
            if self.live.before is None:
                self.live = replace(self.live, before=after.detach())
            apart = divergence(self.live.before, after, hparams.kl_direction)
            kl = zero.index_add(0, places.kept_row.to(at), apart * places.kept_share.to(at, logits.dtype))
        if len(behind):
            said = behind.log_softmax(-1)[owner, ids].clamp_max(-torch.finfo(logits.dtype).eps)
            unsaid = -torch.log(-torch.expm1(said))
            penalty = _largest(
                zero, owner, unsaid if hparams.penalty_on == "any" else unsaid.where(places.first.to(at), 0.0)
            )
        # unused vectors are 0
        norm = self.vectors[self.live.index].flatten(1).norm(dim=1).to(at, logits.dtype)
        return torch.stack([nll, hparams.alpha * kl, hparams.beta * penalty, hparams.gamma * norm])

    def _leave(self, stays: list[bool]) -> _Live:
        """Without the requests that have stopped."""
        live = self.live
        which = [row for row, stay in enumerate(stays) if stay]
        numbers = [live.numbers[row] for row in which]
        places = Places.of([self.rows[number] for number in numbers], self.view.input_device)
        width, rows, slots = places.batch.input_ids.shape[1], torch.tensor(which), self._slots(numbers)

        def some(states):  # without the columns that are padding in all of them
            return states[rows.to(states.device), :width]

        prefix = replace(live.prefix, hidden=some(live.prefix.hidden))
        q = some(live.q)[..., : slots[self.lowest].unit.shape[1]]
        before = live.before
        if before is not None:
            before = before[torch.tensor(stays)[live.places.kept_row.cpu()].to(before.device)]
        return _Live(
            numbers,
            live.index[rows.to(live.index.device)],
            places,
            prefix,
            q,
            None if live.ffn_out is None else some(live.ffn_out),
            slots,
            before,
        )


def _largest(zero: Tensor, owner: Tensor, values: Tensor) -> Tensor:
    """Largest of the values (none below 0) of each owner."""
    return zero.scatter_reduce(0, owner, values, "amax")
