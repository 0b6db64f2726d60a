"""Search and keys spelled out: one unpadded prompt at a time through the whole model, hooks placed by hand."""

import torch

from easyedit_neuron.tokens import subject_last_index


def plain_search(model, module, tok, request, hparams, contexts):
    """EasyEdit's search for a vector added to the output of ``module``.

    Returns:
        (initial value, delta, losses), in the model's dtype.
    """
    target = tok(" " + request["target_new"], add_special_tokens=False)["input_ids"]
    prompt, subject = request["prompt"].replace(request["subject"], "{}"), request["subject"]
    initial = None

    def logits(template, extra, delta):
        nonlocal initial
        at = subject_last_index(tok, template, subject)

        def add(_module, _args, output):
            nonlocal initial
            hidden = output[0] if isinstance(output, tuple) else output
            initial = hidden[0, at].detach().clone() if initial is None else initial
            rows = [hidden[:, i] + delta if i == at else hidden[:, i] for i in range(hidden.shape[1])]
            return (torch.stack(rows, 1), *output[1:]) if isinstance(output, tuple) else torch.stack(rows, 1)

        handle = module.register_forward_hook(add)
        ids = tok(template.format(subject))["input_ids"]
        out = model(input_ids=torch.tensor([ids + extra]), use_cache=False).logits[0]
        handle.remove()
        return out, at, len(ids) - 1

    delta = torch.zeros(32, dtype=model.dtype, requires_grad=True)
    opt = torch.optim.Adam([delta], lr=hparams.v_lr)
    base, losses = None, []
    for step in range(hparams.v_num_grad_steps):
        opt.zero_grad()
        nll = 0.0
        for context in contexts:
            out, _, end = logits(context.replace("{}", prompt), target[:-1], delta)
            nll = nll + torch.nn.functional.cross_entropy(out[end:], torch.tensor(target)) / len(contexts)
        out, at, _ = logits(hparams.kl_prompt, [], delta)
        after = out[at].log_softmax(-1)
        base = after.detach() if base is None else base
        kl = (after.exp() * (after - base)).sum()
        loss = nll + hparams.kl_factor * kl + hparams.v_weight_decay * delta.norm() / initial.norm() ** 2
        losses.append(float(loss.detach()))
        if losses[-1] < hparams.v_stop_loss or step == hparams.v_num_grad_steps - 1:
            break
        loss.backward()
        opt.step()
        limit = hparams.clamp_norm_factor * initial.norm()
        with torch.no_grad():
            if delta.norm() > limit:
                delta.mul_(limit / delta.norm())
    return initial, delta.detach(), losses


def plain_keys(model, view, tok, request, layer, contexts):
    """Input of the down projection at the subject's last token, [contexts, d_ff]."""
    found, prompt = [], request["prompt"].replace(request["subject"], "{}")
    for context in contexts:
        template, seen = context.replace("{}", prompt), []
        handle = view.down_proj(layer).register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
        with torch.no_grad():
            model(input_ids=torch.tensor([tok(template.format(request["subject"]))["input_ids"]]))
        handle.remove()
        found.append(seen[0][0, subject_last_index(tok, template, request["subject"])])
    return torch.stack(found)
