"""z*: the value at the subject's last token that makes the model say the new object."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch.nn import functional

from ..arch.frozen import frozen_parameters
from ..arch.states import take
from ..arch.view import ModelView
from ..edits.request import EditRequest
from ..utils.memory import in_batches
from .cached_forward import CleanPass, Suffix
from .preservation import Kept
from .z_prompts import TargetPrompts, target_prompts


@dataclass(frozen=True)
class Target:
    """Result of the search for one request.

    Attributes:
        value: z*, or v* at the FFN's output [d_model], in the compute dtype (float32; float64 for a float64
            model): initial value plus delta.
        initial: z [d_model] on the bare prompt before the edit.
        losses: total loss of every step.
        probability: mean probability of the new object over the contexts at the last step.
    """

    value: torch.Tensor
    initial: torch.Tensor
    losses: list[float] = field(default_factory=list)
    probability: float = 0.0


def find_targets(
    view: ModelView,
    tok,
    requests: list[EditRequest],
    hparams,
    contexts: list[str],
    layer: int,
    read: Callable[[CleanPass, TargetPrompts], Any] | None = None,
    readings: list | None = None,
    site: Literal["layer_out", "ffn_out"] = "layer_out",
    kept: list[list[Kept]] | None = None,
) -> list[Target]:
    """Optimises one vector per request, added at the subject's last token of ``layer``'s output (EasyEdit's
    loss).

    ``loss = mean_contexts mean_tokens NLL(target) + kl_factor KL(p || p0) on kl_prompt at the subject
    + keep_factor (mean_earlier mean_tokens NLL(object) + mean_kept KL(p || p0)) + v_weight_decay |delta| /
    |z|^2``; Adam at ``v_lr``, at most ``v_num_grad_steps`` evaluations, stop below ``v_stop_loss``, ``|delta|
    <= clamp_norm_factor |z|``. The model's weights and flags are as before afterwards.

    Every request has its own loss, Adam moments and stop, so that a batch gives what single requests give but
    for rounding; who has stopped leaves the batch. A step runs the blocks above ``layer`` on the tokens from
    the subject's last on (see ``suffix``) and the unembedding on the positions in the loss.

    Equal to EasyEdit's ``compute_z`` but for: the target's tokens are appended as ids, where EasyEdit decodes
    all but the last and tokenises that text again (a character cut in two by the last token then becomes a
    replacement character, and the labels are shifted; ``easyedit_quirks: [retokenised_target]``); the loss
    reads the model's own logits, softcap included, where EasyEdit leaves it out (``no_softcap``); z* is at
    least float32 whatever the model's dtype.

    Args:
        view, tok: model and tokenizer.
        requests: n edits, searched for at the same weights, ``hparams.z_batch_size`` together; a batch for
            which memory does not suffice is halved.
        hparams: ``PathHyperParams``.
        contexts: flat list of context templates, the bare ``"{}"`` first.
        layer: the last edited layer.
        read: sees the clean pass of each batch (attribution reads the same prompts); what it gives back is
            appended to ``readings`` once the batch is done.
        site: where the vector is added: the output of the block (z*) or of its FFN (ROME's v*), in front of a
            norm behind the FFN. It is also what ``|z|`` in the loss, the clamp and ``Target.initial`` are
            about.
        kept: per request other prompts of its subject (``kept.kept_prompts``): the objects of earlier edits
            are wanted there as the new one is at its prompt, or the next token is kept. Of the latter those
            to which the model says now what it says to the edited prompt are left out: they ask for the
                edited fact.

    Returns:
        n Targets.
    """

    def search(numbers):
        batch = [requests[number] for number in numbers]
        prompts = target_prompts(
            tok,
            batch,
            contexts,
            hparams.kl_prompt,
            view.input_device,
            hparams.has_quirk("retokenised_target"),
            kept and [kept[number] for number in numbers],
        )
        clean = CleanPass(
            view, prompts.batch, layer, list(hparams.layers) if read else [layer] if site == "ffn_out" else ()
        )
        seen = read(clean, prompts) if read else None
        prepared = _Search(view, prompts, clean, hparams, layer, site)
        del clean  # its keys and values of whole rows are not needed any more
        found = prepared.run()
        if read:
            readings.append(seen)
        return found

    with frozen_parameters(view.model):
        return in_batches(range(len(requests)), hparams.z_batch_size, search, "search for z*")


@dataclass
class _Live:
    """Rows of the requests that are still searched for; row and request numbers count these alone."""

    suffix: Suffix
    request: torch.Tensor  # [m] number in the batch
    owner: torch.Tensor  # [R]
    at: torch.Tensor  # [R] where delta is added
    context: torch.Tensor  # [R] whether it is a context of the edit
    answer: dict[str, torch.Tensor]  # row, at, id, share: [A]
    kept: dict[
        str, torch.Tensor
    ]  # row, at, share: [P], where the KL terms are read (the KL prompt, kept prompts)
    before: torch.Tensor  # [P, V] log-probabilities of the unedited model there
    ffn_out: torch.Tensor | None  # [R, d_model] clean output of the FFN there, where a norm lies behind it

    def keep(self, stays: torch.Tensor) -> "_Live":
        """Without the requests where ``stays`` [m] is False."""
        rows = stays[self.owner]
        number, position = torch.cumsum(stays, 0) - 1, torch.cumsum(rows, 0) - 1
        answers = rows[self.answer["row"]]
        answer = {name: values[answers] for name, values in self.answer.items()}
        answer["row"] = position[answer["row"]]
        read = rows[self.kept["row"]]
        kept = {name: values[read] for name, values in self.kept.items()}
        kept["row"] = position[kept["row"]]
        suffix = self.suffix.rows(rows.nonzero().squeeze(1))
        return _Live(
            suffix,
            self.request[stays],
            number[self.owner[rows]],
            self.at[rows],
            self.context[rows],
            answer,
            kept,
            self.before[read.to(self.before.device)],
            None if self.ffn_out is None else self.ffn_out[rows.to(self.ffn_out.device)],
        )


class _Search:
    """Adam on the deltas of one batch of requests."""

    def __init__(
        self, view: ModelView, prompts: TargetPrompts, clean: CleanPass, hparams, layer: int, site: str
    ):
        self.view, self.hparams = view, hparams
        self.loss_layer = (
            view.n_layers - 1 if hparams.v_loss_layer is None else max(hparams.v_loss_layer, layer)
        )
        self.contexts = prompts.prompt_end.shape[1]
        suffix, begin = clean.suffix(prompts.start)
        moved = begin - prompts.start  # from positions in the row to positions in the suffix
        at = prompts.lookup + moved
        answer = {
            "row": prompts.answer_row,
            "at": prompts.answer_at + moved[prompts.answer_row],
            "id": prompts.answer_id,
        }
        context = torch.zeros_like(at, dtype=torch.bool)
        context[prompts.context_rows.flatten()] = True
        share = prompts.answer_share
        answer["share"] = torch.where(context[prompts.answer_row], share, hparams.keep_factor * share)
        kept, before = _kept(view, prompts, clean, hparams)
        kept["at"] = kept["at"] + moved[kept["row"]]
        inside = site == "ffn_out"
        states = clean.seen.ffn_out[layer] if inside else clean.prefix.hidden
        clean_values = take(states, torch.arange(len(prompts.lookup), device=at.device), prompts.lookup)
        clean_values = clean_values.to(view.device_of(layer), view.compute_dtype)
        self.initial = clean_values[prompts.bare_row.to(clean_values.device)]
        self.norm = view.post_ffn_norm(layer) if inside else None
        numbers = torch.arange(len(prompts.kl_row), device=at.device)
        self.live = _Live(
            suffix,
            numbers,
            prompts.owner,
            at,
            context,
            answer,
            kept,
            before,
            None if self.norm is None else clean_values,
        )

    @torch.enable_grad()
    def run(self) -> list[Target]:
        """Targets in the requests' order."""
        count, steps = len(self.initial), self.hparams.v_num_grad_steps
        delta = torch.zeros_like(self.initial, requires_grad=True)
        limit = self.hparams.clamp_norm_factor * self.initial.norm(dim=1, keepdim=True)
        opt = torch.optim.Adam([delta], lr=self.hparams.v_lr)
        losses: list[list[float]] = [[] for _ in range(count)]
        found: list[Target | None] = [None] * count
        for step in range(steps):
            opt.zero_grad()
            loss, probability = self._loss(delta)
            values, stays = loss.detach().tolist(), []
            for row, (number, value) in enumerate(zip(self.live.request.tolist(), values)):
                losses[number].append(value)
                stays.append(value >= self.hparams.v_stop_loss and step < steps - 1)
                if not stays[-1]:
                    found[number] = Target(
                        (self.initial[number] + delta[number]).detach(),
                        self.initial[number].clone(),
                        losses[number],
                        float(probability[row]),
                    )
            if not any(stays):
                break
            kept = torch.tensor(stays, device=loss.device)
            loss[kept].sum().backward()
            opt.step()
            with torch.no_grad():
                length = delta.norm(dim=1, keepdim=True)
                delta.mul_(torch.where(length > limit, limit / length, 1.0))
            if not all(stays):
                self.live = self.live.keep(kept.to(self.live.owner.device))
        return found

    def _loss(self, delta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(loss [m], mean probability over contexts [m]) of the live requests."""
        live, hparams = self.live, self.hparams
        rows = torch.arange(len(live.owner), device=live.owner.device)

        def add(hidden):
            added = delta[live.request[live.owner].to(delta.device)]
            if live.ffn_out is not None:  # what reaches the block's output is not what is added to the FFN's
                added = self.norm(live.ffn_out + added) - self.norm(live.ffn_out)
            added = added.to(hidden.device, hidden.dtype)
            where = rows.to(hidden.device), live.at.to(hidden.device)
            return hidden.index_put(where, hidden[where] + added)

        early = self.loss_layer < self.view.n_layers - 1
        seen = live.suffix.run(add, [self.loss_layer] if early else [])
        read = seen.layer_out[self.loss_layer].to(seen.final_hidden.device) if early else seen.final_hidden
        answers = take(read, live.answer["row"], live.answer["at"])
        kept = take(seen.final_hidden, live.kept["row"], live.kept["at"])
        if hparams.has_quirk("no_softcap"):
            logits = torch.cat([self.view.logits(answers, softcap=False), self.view.logits(kept)])
        else:
            logits = self.view.logits(torch.cat([answers, kept]))
        at = logits.device
        nll = functional.cross_entropy(logits[: len(answers)], live.answer["id"].to(at), reduction="none")
        nll = nll * live.answer["share"].to(nll)
        by_row = nll.new_zeros(len(rows)).index_add(0, live.answer["row"].to(at), nll)
        by_request = nll.new_zeros(len(live.request)).index_add(0, live.owner.to(at), by_row)
        after = logits[len(answers) :].log_softmax(-1)
        kl = (after.exp() * (after - live.before)).sum(-1) * live.kept["share"].to(after)
        kl = kl.new_zeros(len(live.request)).index_add(0, live.owner[live.kept["row"]].to(at), kl)
        mine = delta[live.request.to(delta.device)]
        decay = mine.norm(dim=1) / self.initial[live.request.to(delta.device)].norm(dim=1) ** 2
        loss = by_request.to(delta.device) + kl.to(delta.device) + hparams.v_weight_decay * decay
        return loss, self._probability(by_row.detach(), live)

    def _probability(self, by_row: torch.Tensor, live: _Live) -> torch.Tensor:
        likely = torch.exp(-by_row * self.contexts)
        likely[~live.context.to(likely.device)] = 0.0
        return (
            likely.new_zeros(len(live.request)).index_add(0, live.owner.to(likely.device), likely)
            / self.contexts
        )


@torch.no_grad()
def _kept(
    view: ModelView, prompts: TargetPrompts, clean: CleanPass, hparams
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Where the KL terms are read, with their weights, and the log-probabilities [P, V] there now."""
    row = torch.cat([prompts.kl_row, prompts.kept_row])
    at = torch.cat([prompts.lookup[prompts.kl_row], prompts.kept_end])
    before = view.logits(take(clean.seen.final_hidden, row, at)).log_softmax(-1)
    count = len(prompts.kl_row)
    share = torch.full((count,), float(hparams.kl_factor), device=row.device)
    if len(prompts.kept_row):
        said = view.logits(take(clean.seen.final_hidden, prompts.bare_row, prompts.prompt_end[:, 0])).argmax(
            -1
        )
        owner = prompts.owner[prompts.kept_row]
        other = (before[count:].argmax(-1).to(owner.device) != said.to(owner.device)[owner]).to(share)
        number = share.new_zeros(count).index_add(0, owner, other)
        share = torch.cat([share, hparams.keep_factor * other / number[owner].clamp_min(1)])
    return {"row": row, "at": at, "share": share}, before
