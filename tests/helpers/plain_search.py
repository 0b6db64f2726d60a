"""The search for z* and keys without batching: one unpadded prompt at a time through the whole model."""

import torch

from easyedit_neuron.arch.tokens import subject_last_index


class PlainLoss:
    """EasyEdit's loss of a vector added to the output of ``module`` at the subject's last token.

    ``kept`` holds other prompts of the subject as (template, object of an earlier edit, or None to preserve
    the next token).

    Attributes:
        initial: the output of ``module`` on the bare prompt, once a loss has been computed.
    """

    def __init__(self, model, module, tok, request, contexts, preserved=()):
        self.model, self.module, self.tok, self.contexts = model, module, tok, contexts
        self.preserved = [template for template, target in preserved if target is None]
        self.earlier = [(template, target) for template, target in preserved if target is not None]
        self.subject, self.prompt = request["subject"], request["prompt"].replace(request["subject"], "{}")
        self.target = tok(" " + request["target_new"], add_special_tokens=False)["input_ids"]
        self.initial = None

    def logits(self, template, extra, delta):
        """Logits [T, V], index of the subject's last token, index of the prompt's last token."""
        at = subject_last_index(self.tok, template, self.subject)

        def add(_module, _args, output):
            hidden = output[0] if isinstance(output, tuple) else output
            if self.initial is None:
                self.initial = hidden[0, at].detach().clone()
            rows = [hidden[:, i] + delta if i == at else hidden[:, i] for i in range(hidden.shape[1])]
            return (torch.stack(rows, 1), *output[1:]) if isinstance(output, tuple) else torch.stack(rows, 1)

        handle = self.module.register_forward_hook(add)
        ids = self.tok(template.format(self.subject))["input_ids"]
        out = self.model(input_ids=torch.tensor([ids + extra]), use_cache=False).logits[0]
        handle.remove()
        return out, at, len(ids) - 1

    def __call__(self, delta, hparams):
        nll = []
        for context in self.contexts:
            logits, _, end = self.logits(context.replace("{}", self.prompt), self.target[:-1], delta)
            nll.append(
                -sum(logits[end + i].log_softmax(-1)[t] for i, t in enumerate(self.target)) / len(self.target)
            )
        logits, at, _ = self.logits(hparams.kl_prompt, [], delta)
        base, _, _ = self.logits(hparams.kl_prompt, [], torch.zeros_like(delta))
        after, before = logits[at].softmax(-1), base[at].softmax(-1).detach()
        kl = (after * (after / before).log()).sum()
        decay = delta.pow(2).sum().sqrt() / self.initial.pow(2).sum() if delta.any() else 0.0
        return (
            sum(nll) / len(nll)
            + hparams.kl_factor * kl
            + hparams.v_weight_decay * decay
            + self.keeping(delta, hparams)
            + self.repeating(delta, hparams)
        )

    def keeping(self, delta, hparams):
        """Mean KL at the ends of preserved prompts, without those answered as the edited prompt is."""
        zero, terms = torch.zeros_like(delta), []
        logits, _, end = self.logits(self.prompt, [], zero)
        answer = int(logits[end].argmax())
        for template in self.preserved:
            logits, _, end = self.logits(template, [], zero)
            before = logits[end].softmax(-1).detach()
            if int(before.argmax()) != answer:
                after = self.logits(template, [], delta)[0][end].softmax(-1)
                terms.append((after * (after / before).log()).sum())
        return hparams.keep_factor * sum(terms) / len(terms) if terms else 0.0

    def repeating(self, delta, hparams):
        """Mean loss of the objects of earlier edits after their prompts."""
        terms = []
        for template, earlier_target in self.earlier:
            target = self.tok(" " + earlier_target.strip(), add_special_tokens=False)["input_ids"]
            logits, _, end = self.logits(template, target[:-1], delta)
            terms.append(-sum(logits[end + i].log_softmax(-1)[t] for i, t in enumerate(target)) / len(target))
        return hparams.keep_factor * sum(terms) / len(terms) if terms else 0.0


def plain_search(model, module, tok, request, hparams, contexts, preserved=()):
    """EasyEdit's search for a vector added to the output of ``module``.

    Returns:
        (initial value, delta, losses), in the model's dtype.
    """
    loss_of = PlainLoss(model, module, tok, request, contexts, preserved)
    delta = torch.zeros(32, dtype=model.dtype, requires_grad=True)
    optimiser = torch.optim.Adam([delta], lr=hparams.v_lr)
    losses = []
    for step in range(hparams.v_num_grad_steps):
        optimiser.zero_grad()
        loss = loss_of(delta, hparams)
        losses.append(float(loss.detach()))
        if losses[-1] < hparams.v_stop_loss or step == hparams.v_num_grad_steps - 1:
            break
        loss.backward()
        optimiser.step()
        limit = hparams.clamp_norm_factor * loss_of.initial.norm()
        with torch.no_grad():
            if delta.norm() > limit:
                delta.mul_(limit / delta.norm())
    return loss_of.initial, delta.detach(), losses


def plain_keys(model, view, tok, request, layer, contexts):
    """Input of the down projection at the subject's last token, [contexts, d_ff]."""
    subject, inputs, keys = request["subject"], [], []
    prompt = request["prompt"].replace(subject, "{}")
    handle = view.down_proj(layer).register_forward_pre_hook(lambda _module, args: inputs.append(args[0]))
    for context in contexts:
        template = context.replace("{}", prompt)
        with torch.no_grad():
            model(input_ids=torch.tensor([tok(template.format(subject))["input_ids"]]))
        keys.append(inputs[-1][0, subject_last_index(tok, template, subject)])
    handle.remove()
    return torch.stack(keys)
