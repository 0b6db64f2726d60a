"""z*: the value at the subject's last token that makes the model say the new object."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from ..arch.capture import take
from ..arch.view import ModelView, frozen_parameters
from ..attribution import Readings
from ..edits.request import EditRequest, Fact
from ..errors import EditError
from ..optim import Objective, divergence, minimise
from ..utils.memory import batch_results
from .cached_forward import CleanPass, Suffix
from .preservation import PreservedPrompt
from .z_prompts import ZPrompts, z_prompts

Site = Literal["layer_out", "ffn_out"]


@dataclass(frozen=True)
class TargetValue:
    """Result of the search for one request.

    Attributes:
        value: z*, or v* at the FFN's output [d_model], in the compute dtype (float32; float64 for a float64
            model): initial value plus delta.
        initial: z [d_model] on the bare prompt before the edit.
        losses: total loss of every step.
        probability: mean probability of the new object over the contexts at the last step.
    """

    value: Tensor
    initial: Tensor
    losses: list[float] = field(default_factory=list)
    probability: float = 0.0


@dataclass(frozen=True)
class TargetValues:
    """Target values of n requests, and what their clean forward pass showed.

    Attributes:
        targets: one per request.
        readings: neurons of every context of every request (request-major) at its last token, on the unedited
            weights; None unless asked for.
        context_keys: [n c, d_ff] keys of every context at the subject's last token, the bare prompt's first;
            None unless v* was searched for.
    """

    targets: list[TargetValue]
    readings: Readings | None = None
    context_keys: Tensor | None = None

    @property
    def z(self) -> Tensor:
        """[d_model, n], the target values."""
        return torch.stack([target.value for target in self.targets], 1)

    @classmethod
    def joined(cls, parts: Sequence[TargetValues]) -> TargetValues:
        """The requests of several searches, one after the other."""
        readings = [part.readings for part in parts if part.readings is not None]
        keys = [part.context_keys for part in parts if part.context_keys is not None]
        return cls(
            [target for part in parts for target in part.targets],
            Readings.joined(readings) if readings else None,
            torch.cat(keys) if keys else None,
        )


def compute_z(
    view: ModelView,
    tok,
    requests: list[EditRequest],
    hparams,
    contexts: list[str],
    layer: int,
    *,
    site: Site = "layer_out",
    preserved: list[list[PreservedPrompt]] | None = None,
    read_neurons: bool = False,
) -> TargetValues:
    """Optimise one vector per request, added at the subject's last token to ``layer``'s output (EasyEdit's
    loss).

    ``loss = mean_contexts mean_tokens NLL(target) + kl_factor KL(p || p0) on kl_prompt at the subject
    + keep_factor (mean_earlier mean_tokens NLL(object) + mean_preserved KL(p || p0)) + v_weight_decay |delta|
    / |z|^2``. Every step adds noise of ``v_noise rms(z)`` beside delta. Adam at ``v_lr``, at most
    ``v_num_grad_steps`` evaluations, stop below ``v_stop_loss``, ``|delta| <= clamp_norm_factor |z|``.
    Weights and flags of the model are the same afterwards.

    Every request has its own loss, Adam moments and stop, so that a batch gives what single requests give
    except for rounding. A step runs the blocks above ``layer`` on the tokens from the subject's last on (see
    ``cached_forward``) and the unembedding on the positions in the loss.

    Equal to EasyEdit's ``compute_z`` except for three points. The target's tokens are appended as ids;
    EasyEdit decodes all but the last and tokenises that text again, which shifts the labels where a character
    is cut in two (``easyedit_quirks: [retokenised_target]``). The loss reads the model's own logits with
    their softcap (``no_softcap``). z* is at least float32 whatever the model's dtype.

    Args:
        view, tok: model and tokenizer.
        requests: n edits, searched for at the same weights, ``hparams.z_batch_size`` together; the batch is
            halved where memory does not suffice.
        hparams: ``PathHyperParams``.
        contexts: flat list of context templates, the bare ``"{}"`` first.
        layer: the last edited layer.
        site: where the vector is added: the output of the block (z*) or of its FFN (ROME's v*), in front of a
            norm behind the FFN. ``|z|`` in the loss and in the clamp, and ``TargetValue.initial``, are of the
            same place.
        preserved: per request other prompts of its subject (``preservation.preserved_prompts``). Prompts
            without an object that the model now answers as it answers the edited prompt ask for the edited
            fact: they are left out.
        read_neurons: also read what attribution needs off the clean pass, which runs the same prompts.
    """

    def search(numbers: Sequence[int]) -> TargetValues:
        batch = [requests[number] for number in numbers]
        prompts = z_prompts(
            tok,
            batch,
            contexts,
            hparams.kl_prompt,
            view.input_device,
            preserved and [preserved[number] for number in numbers],
            hparams.has_quirk("retokenised_target"),
        )
        read_layers = list(hparams.layers) if read_neurons else [layer] if site == "ffn_out" else []
        clean = CleanPass(view, prompts.targets.batch, layer, read_layers)
        rows = prompts.context_rows.flatten()
        readings = keys = None
        if read_neurons:
            readings = Readings.of(view, clean.seen, rows, prompts.targets.prompt_end[rows])
        if site == "ffn_out":
            keys = take(clean.seen.key[layer], rows, prompts.lookup[rows])
            keys = keys.to(view.device_of(layer), view.compute_dtype)
        objective = _ZObjective(
            view, prompts, clean, hparams, layer, site, [request.fact for request in batch]
        )
        del clean  # the keys and values of whole rows are not needed any more
        minimise(objective, hparams.v_lr, hparams.v_num_grad_steps)
        return TargetValues(objective.targets, readings, keys)

    with frozen_parameters(view.model), torch.enable_grad():
        parts = batch_results(range(len(requests)), hparams.z_batch_size, search, "search for z*")
    return TargetValues.joined(parts)


@dataclass(frozen=True)
class _LiveRows:
    """Rows of the m requests that are still searched for; row numbers count these rows alone."""

    suffix: Suffix
    number: Tensor  # [m] number of the request in the batch
    request: Tensor  # [R] place of the row's request among the m
    lookup: Tensor  # [R] position where delta is added
    is_context: Tensor  # [R] whether the row is a context of the edit
    target: dict[str, Tensor]  # row, position, id, share: [A] tokens in the NLL
    kl: dict[str, Tensor]  # row, position, share: [P] places of the KL terms
    log_p0: Tensor  # [P, V] log probabilities of the unedited model there
    ffn_out: Tensor | None  # [R, d_model] clean FFN output at lookup, where a branch is behind it

    def keep(self, active: Tensor) -> _LiveRows:
        """Without the requests where ``active`` [m] is False."""
        rows = active[self.request]
        new_request, new_row = torch.cumsum(active, 0) - 1, torch.cumsum(rows, 0) - 1

        def of_rows(entries: dict[str, Tensor]) -> dict[str, Tensor]:
            inside = rows[entries["row"]]
            entries = {name: values[inside] for name, values in entries.items()}
            return {**entries, "row": new_row[entries["row"]]}

        return _LiveRows(
            self.suffix.rows(rows.nonzero().squeeze(1)),
            self.number[active],
            new_request[self.request[rows]],
            self.lookup[rows],
            self.is_context[rows],
            of_rows(self.target),
            of_rows(self.kl),
            self.log_p0[rows[self.kl["row"]].to(self.log_p0.device)],
            None if self.ffn_out is None else self.ffn_out[rows.to(self.ffn_out.device)],
        )


class _Noise:
    """Gaussian noise at ``scale`` times the root mean square of each request's initial value [n, d_model].

    Every request draws from a generator of its own, so that a batch gives what single requests give.
    """

    def __init__(self, scale: float, initial: Tensor, seeds: Sequence[str]):
        self.deviation = scale * initial.square().mean(1, keepdim=True).sqrt()
        self.size = initial.shape[1]
        self.generators = [torch.Generator().manual_seed(zlib.crc32(seed.encode())) for seed in seeds]

    def draw(self, number: Tensor) -> Tensor:
        """[R, d_model], for rows of the requests ``number`` [R]."""
        noise = self.deviation.new_empty(len(number), self.size)
        for request in number.unique().tolist():
            rows = number == request
            shape = int(rows.sum()), self.size
            noise[rows] = torch.randn(shape, generator=self.generators[request]).to(noise)
        return noise * self.deviation[number]


class _ZObjective(Objective):
    """The loss of ``compute_z`` for one batch of n requests; ``targets`` are complete after ``minimise``."""

    def __init__(
        self,
        view: ModelView,
        prompts: ZPrompts,
        clean: CleanPass,
        hparams,
        layer: int,
        site: Site,
        facts: Sequence[Fact],
    ):
        self.view, self.hparams, self.contexts = view, hparams, prompts.contexts
        self.loss_layer = view.n_layers - 1
        if hparams.v_loss_layer is not None:
            self.loss_layer = max(hparams.v_loss_layer, layer)
        # The value that delta is added to, on all rows; the bare prompts' is the request's initial value.
        states = clean.seen.ffn_out[layer] if site == "ffn_out" else clean.prefix.hidden
        values = take(states, torch.arange(len(prompts.lookup), device=prompts.lookup.device), prompts.lookup)
        values = values.to(view.device_of(layer), view.compute_dtype)
        self.initial = values[prompts.bare_row.to(values.device)]
        self.limit = hparams.clamp_norm_factor * self.initial.norm(dim=1, keepdim=True)
        self.branch = view.ffn_branch(layer) if site == "ffn_out" else None
        self.noise = _Noise(hparams.v_noise, self.initial, [f"{hparams.seed} {fact}" for fact in facts])
        self.delta = torch.zeros_like(self.initial, requires_grad=True)
        self.parameters = [self.delta]
        kl, log_p0 = self._kl_places(prompts, clean)
        self.live = self._live_rows(prompts, clean, kl, log_p0, None if self.branch is None else values)
        self.curves: list[list[float]] = [[] for _ in self.initial]
        self.targets: list[TargetValue | None] = [None for _ in self.initial]

    def _live_rows(
        self,
        prompts: ZPrompts,
        clean: CleanPass,
        kl: dict[str, Tensor],
        log_p0: Tensor,
        ffn_out: Tensor | None,
    ) -> _LiveRows:
        suffix, begin = clean.suffix(prompts.start)
        shift = begin - prompts.start  # from positions in the row to positions in the suffix
        targets = prompts.targets
        is_context = torch.zeros_like(prompts.lookup, dtype=torch.bool)
        is_context[prompts.context_rows.flatten()] = True
        in_context = is_context[targets.owner]
        return _LiveRows(
            suffix,
            torch.arange(len(prompts.kl_row), device=prompts.lookup.device),
            prompts.request,
            prompts.lookup + shift,
            is_context,
            {
                "row": targets.owner,
                "position": targets.position + shift[targets.owner],
                "id": targets.token_ids,
                "share": torch.where(in_context, prompts.share, self.hparams.keep_factor * prompts.share),
            },
            {**kl, "position": kl["position"] + shift[kl["row"]]},
            log_p0,
            ffn_out,
        )

    @torch.no_grad()
    def _kl_places(self, prompts: ZPrompts, clean: CleanPass) -> tuple[dict[str, Tensor], Tensor]:
        """Where the KL terms are read, with their weights, and the log probabilities [P, V] there now."""
        view, hparams, ends = self.view, self.hparams, prompts.targets.prompt_end
        row = torch.cat([prompts.kl_row, prompts.preserved_row])
        position = torch.cat([prompts.lookup[prompts.kl_row], ends[prompts.preserved_row]])
        log_p0 = view.logits(take(clean.seen.final_hidden, row, position)).log_softmax(-1)
        n = len(prompts.kl_row)
        share = torch.full((n,), float(hparams.kl_factor), device=row.device)
        if len(prompts.preserved_row):
            # A preserved prompt that the model answers as the edited prompt asks for the edited fact: weight
            # 0.
            hidden = take(clean.seen.final_hidden, prompts.bare_row, ends[prompts.bare_row])
            edited_answer = view.logits(hidden).argmax(-1)
            request = prompts.request[prompts.preserved_row]
            answer = log_p0[n:].argmax(-1).to(request.device)
            other = (answer != edited_answer.to(request.device)[request]).to(share)
            count = share.new_zeros(n).index_add(0, request, other)
            share = torch.cat([share, hparams.keep_factor * other / count[request].clamp_min(1)])
        return {"row": row, "position": position, "share": share}, log_p0

    def losses(self) -> Tensor:
        """Losses [m] of the live requests."""
        live, hparams, view, m = self.live, self.hparams, self.view, len(self.live.number)
        # Run the blocks above with delta added; only the positions in the loss reach the unembedding.
        layers = [self.loss_layer] if self.loss_layer < view.n_layers - 1 else []
        seen = live.suffix.run(self._add_delta, layers)
        hidden = seen.layer_out[self.loss_layer].to(seen.final_hidden.device) if layers else seen.final_hidden
        target = take(hidden, live.target["row"], live.target["position"])
        kl = take(seen.final_hidden, live.kl["row"], live.kl["position"])
        if hparams.has_quirk("no_softcap"):
            target_logits, kl_logits = view.logits(target, softcap=False), view.logits(kl)
        else:
            target_logits, kl_logits = view.logits(torch.cat([target, kl])).split([len(target), len(kl)])
        at = target_logits.device
        # NLL of the new object, and of the objects of preserved prompts
        nll = functional.cross_entropy(target_logits, live.target["id"].to(at), reduction="none")
        nll = nll * live.target["share"].to(nll)
        by_row = nll.new_zeros(len(live.request)).index_add(0, live.target["row"].to(at), nll)
        by_request = nll.new_zeros(m).index_add(0, live.request.to(at), by_row)
        self.row_nll = by_row.detach()
        # KL(p || p0) on the KL prompt and on preserved prompts
        kl = divergence(live.log_p0, kl_logits.log_softmax(-1), "after_before")
        kl = kl * live.kl["share"].to(kl)
        kl = kl.new_zeros(m).index_add(0, live.request[live.kl["row"]].to(at), kl)
        # Weight decay
        number = live.number.to(self.delta.device)
        decay = self.delta[number].norm(dim=1) / self.initial[number].norm(dim=1) ** 2
        return by_request.to(decay.device) + kl.to(decay.device) + hparams.v_weight_decay * decay

    def _add_delta(self, hidden: Tensor) -> Tensor:
        live = self.live
        number = live.number[live.request].to(self.delta.device)
        added = self.delta[number]
        if self.hparams.v_noise:
            added = added + self.noise.draw(number)
        if live.ffn_out is not None:  # a norm or a factor lies between the FFN and the block's output
            added = self.branch(live.ffn_out + added) - self.branch(live.ffn_out)
        row = torch.arange(len(live.request), device=hidden.device)
        where = row, live.lookup.to(hidden.device)
        return hidden.index_put(where, hidden[where] + added.to(hidden.device, hidden.dtype))

    def assess(self, losses: Tensor, step: int, last: bool) -> list[bool]:
        """Requests above ``v_stop_loss`` go on; of the others the target value is taken.

        Raises:
            EditError: a loss is not finite. It is not above ``v_stop_loss``, and an edit that changes nothing
                would pass for one.
        """
        wrong = self.live.number[~torch.isfinite(losses).to(self.live.number.device)].tolist()
        if wrong:
            raise EditError(
                f"request {wrong[0]} of the batch: the loss of z* is not finite at step {step}: the model's "
                f"own numbers overflow (a broken or float16 model), or v_lr ({self.hparams.v_lr}) is too high"
            )
        probability, active = self._probability(), []
        for place, (number, loss) in enumerate(zip(self.live.number.tolist(), losses.tolist())):
            self.curves[number].append(loss)
            active.append(loss >= self.hparams.v_stop_loss and not last)
            if not active[-1]:
                initial = self.initial[number]
                value = (initial + self.delta[number]).detach()
                self.targets[number] = TargetValue(
                    value, initial.clone(), self.curves[number], float(probability[place])
                )
        return active

    def _probability(self) -> Tensor:
        """Mean probability of the new object over the contexts [m]."""
        live = self.live
        likely = torch.exp(-self.row_nll * self.contexts)
        likely[~live.is_context.to(likely.device)] = 0.0
        total = likely.new_zeros(len(live.number)).index_add(0, live.request.to(likely.device), likely)
        return total / self.contexts

    @torch.no_grad()
    def constrain(self) -> None:
        """Clamp every delta to ``clamp_norm_factor |z|``."""
        length = self.delta.norm(dim=1, keepdim=True)
        self.delta.mul_(torch.where(length > self.limit, self.limit / length, 1.0))

    def keep(self, active: list[bool]) -> None:
        """Drop the rows of the requests that have stopped."""
        self.live = self.live.keep(torch.tensor(active, device=self.live.request.device))
