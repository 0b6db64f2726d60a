"""z*: the value at the subject's last token that makes the model say the new object."""

from dataclasses import dataclass, field

import torch

from ..arch.capture import Capture
from ..arch.view import ModelView
from ..errors import RequestError
from ..requests import EditRequest
from ..tokens import encode, subject_last_index, target_token_ids


@dataclass(frozen=True)
class Target:
    """Result of the search for one request.

    Attributes:
        value: z* [d_model], float32: initial value plus delta.
        initial: z [d_model] on the bare prompt before the edit.
        losses: total loss of every step.
        probability: mean probability of the new object over the contexts at the last step.
    """

    value: torch.Tensor
    initial: torch.Tensor
    losses: list[float] = field(default_factory=list)
    probability: float = 0.0


@dataclass(frozen=True)
class _Prompts:
    """Token batch of one request: contexts first, the KL prompt last."""

    batch: object
    lookup: torch.Tensor      # [B] index of the subject's last token
    answer: torch.Tensor      # [B-1, n] positions whose next token is a target token
    targets: torch.Tensor     # [n] target token ids


def _prompts(tok, request: EditRequest, contexts: list[str], kl_prompt: str, device) -> _Prompts:
    ids = target_token_ids(tok, request.target_new)
    # a context is applied by replacement, not by format: the prompt itself holds the subject's '{}'
    templates = [context.replace("{}", request.prompt) for context in contexts] + [kl_prompt]
    extra = [ids[:-1]] * len(contexts) + [[]]
    batch = encode(tok, [t.format(request.subject) for t in templates], device, extra)
    lookup = torch.tensor([subject_last_index(tok, t, request.subject) for t in templates], device=device)
    ends = batch.lengths[:-1] - len(ids)
    answer = ends[:, None] + torch.arange(len(ids), device=device)[None]
    if int(lookup.max()) >= batch.input_ids.shape[1] or bool((lookup >= batch.lengths).any()):
        raise RequestError(f"request {request.index}: subject {request.subject!r} is not where its prompt says")
    return _Prompts(batch, lookup, answer, torch.tensor(ids, device=device))


@torch.enable_grad()
def find_target(view: ModelView, tok, request: EditRequest, hparams, contexts: list[str], layer: int) -> Target:
    """Optimises a vector added at the subject's last token of ``layer``'s output (EasyEdit's loss).

    ``loss = mean_contexts mean_tokens NLL(target) + kl_factor KL(p || p0) on kl_prompt at the subject
    + v_weight_decay |delta| / |z|^2``; Adam at ``v_lr``, at most ``v_num_grad_steps`` evaluations, stop below
    ``v_stop_loss``, ``|delta| <= clamp_norm_factor |z|``. The model's weights and flags are as before afterwards.

    Equal to EasyEdit's ``compute_z`` but for: the target's tokens are appended as ids, where EasyEdit decodes all but the last and
    tokenises that text again (a character cut in two by the last token then becomes a replacement character, and the labels
    are shifted); the loss reads the model's own logits, softcap included, where EasyEdit leaves it out; z* is float32
    whatever the model's dtype.

    Args:
        view, tok: model and tokenizer.
        request: one edit.
        hparams: ``PathHyperParams``.
        contexts: flat list of context templates, the bare ``"{}"`` first.
        layer: the last edited layer.

    Returns:
        Target.
    """
    device = view.input_device
    prompts = _prompts(tok, request, contexts, hparams.kl_prompt, device)
    loss_layer = view.n_layers - 1 if hparams.v_loss_layer is None else max(hparams.v_loss_layer, layer)
    delta = torch.zeros(view.d_model, device=view.device_of(layer), dtype=torch.float32, requires_grad=True)
    rows = torch.arange(len(prompts.lookup), device=device)
    opt = torch.optim.Adam([delta], lr=hparams.v_lr)
    before, clean, prefix = None, None, None
    losses, probability = [], 0.0

    def add_delta(out: torch.Tensor) -> torch.Tensor:
        nonlocal clean
        clean = out.detach() if clean is None else clean
        at = torch.zeros_like(out)
        at[rows.to(out.device), prompts.lookup.to(out.device)] = delta.to(out.device, out.dtype)
        return out + at

    for step in range(hparams.v_num_grad_steps):
        opt.zero_grad()
        capture = Capture(view, [loss_layer], want=("layer_out",), edit_layer_out={layer: add_delta}, skip=prefix)
        with _frozen(view.model), capture as seen:
            logits = view.model(**prompts.batch.inputs, use_cache=False).logits
        if prefix is None:
            # what lies below the edited layer never changes during the search
            prefix = seen.prefix(layer, clean)
            initial = clean[0, prompts.lookup[0]].float().clone()
        if loss_layer < view.n_layers - 1:
            logits_fact = view.model.get_output_embeddings()(view.final_norm(seen.layer_out[loss_layer]))
            if view.logit_softcap:
                logits_fact = view.logit_softcap * torch.tanh(logits_fact / view.logit_softcap)
        else:
            logits_fact = logits
        nll = _nll(logits_fact, prompts)
        after = logits[-1, prompts.lookup[-1]].float().log_softmax(-1)
        before = after.detach() if before is None else before
        kl = hparams.kl_factor * (after.exp() * (after - before)).sum()
        decay = hparams.v_weight_decay * delta.norm() / initial.norm() ** 2
        loss = nll.mean().to(delta.device) + kl.to(delta.device) + decay
        losses.append(float(loss.detach()))
        probability = float(torch.exp(-nll.detach()).mean())
        if losses[-1] < hparams.v_stop_loss or step == hparams.v_num_grad_steps - 1:
            break
        loss.backward()
        opt.step()
        limit = hparams.clamp_norm_factor * initial.norm()
        with torch.no_grad():
            if delta.norm() > limit:
                delta.mul_(limit / delta.norm())
    return Target(initial.to(delta.device) + delta.detach(), initial, losses, probability)


def _nll(logits: torch.Tensor, prompts: _Prompts) -> torch.Tensor:
    """[contexts] mean negative log-likelihood of the target tokens."""
    contexts = len(prompts.answer)
    rows = torch.arange(contexts, device=logits.device)[:, None]
    picked = logits[rows, prompts.answer.to(logits.device)].float().log_softmax(-1)
    targets = prompts.targets.to(logits.device).expand(contexts, -1)
    return -picked.gather(-1, targets[..., None]).squeeze(-1).mean(1)


class _frozen:
    """Turns off gradients of all parameters inside the block and puts every flag back afterwards."""

    def __init__(self, model):
        self.parameters = list(model.parameters())

    def __enter__(self):
        self.flags = [p.requires_grad for p in self.parameters]
        for p in self.parameters:
            p.requires_grad_(False)

    def __exit__(self, *exc):
        for p, flag in zip(self.parameters, self.flags):
            p.requires_grad_(flag)
