"""FiNE without batching: one unpadded request through the whole model at a time, one vector after the
other."""

import torch

DOWN = {
    "gpt2": "transformer.h.{}.mlp.c_proj",
    "gptj": "transformer.h.{}.mlp.fc_out",
    "gpt_neox": "gpt_neox.layers.{}.mlp.dense_4h_to_h",
}


class PlainFiNE:
    """The released algorithm on one request.

    Attributes:
        prompt, answer: token ids.
        clean: logits [T, V] of prompt and answer before the edit.
        q, written: layer -> inputs [T, d_ff] and outputs [T, d_model] of its down projection.
    """

    def __init__(self, model, model_type, tok, request, hparams):
        self.model, self.model_type, self.hparams = model, model_type, hparams
        eos = [tok.eos_token_id] if model_type == "gptj" else []
        self.prompt = eos + tok(request["prompt"])["input_ids"]
        self.answer = tok(" " + request["target_new"], add_special_tokens=False)["input_ids"]
        if hparams.add_eos:
            self.answer = self.answer + [tok.eos_token_id]
        self.down = [
            model.get_submodule(DOWN.get(model_type, "model.layers.{}.mlp.down_proj").format(layer))
            for layer in range(4)
        ]
        self.q, self.written = {}, {}

        def record(layer):
            def hook(_module, args, out):
                self.q[layer], self.written[layer] = args[0][0], out[0]

            return hook

        handles = [module.register_forward_hook(record(layer)) for layer, module in enumerate(self.down)]
        with torch.no_grad():
            self.clean = self._logits()
        for handle in handles:
            handle.remove()

    def _logits(self):
        return self.model(input_ids=torch.tensor([self.prompt + self.answer]), use_cache=False).logits[0]

    @torch.no_grad()
    def neurons(self):
        """[(layer, neuron), ...] token by token.

        The score is the activation times the product of value vector and unembedding vector.
        """
        neurons, head = [], self.model.get_output_embeddings().weight
        for at in range(len(self.prompt) - 1, len(self.prompt) + len(self.answer) - 1):
            token, scores = self.clean[at].argmax(), []
            for layer in range(4 - self.hparams.last_layer):
                values = self.down[layer].weight if self.model_type == "gpt2" else self.down[layer].weight.T
                if self.model_type == "gemma2":
                    norm = self.model.model.layers[layer].post_feedforward_layernorm
                    rms = (self.written[layer][at].square().mean() + norm.eps).sqrt()
                    values = values * (1 + norm.weight) / rms
                scores += [
                    (float(self.q[layer][at, i] * (values[i] @ head[token])), layer, i) for i in range(48)
                ]
            best = sorted(scores, reverse=True)[: self.hparams.neuron_num]
            neurons += [(layer, i) for _, layer, i in best]
        return neurons

    def terms(self, neurons, vectors):
        """Weighted NLL, KL, penalty and norm, and the lowest probability of an answer's token."""

        def add(layer):
            def hook(_module, args, out):
                for number, (owner, i) in enumerate(neurons):
                    if owner == layer:
                        out = out + args[0][:, :, i : i + 1] * vectors[number]
                return out

            return hook

        handles = [module.register_forward_hook(add(layer)) for layer, module in enumerate(self.down)]
        try:
            after = self._logits().log_softmax(-1)
        finally:
            for handle in handles:
                handle.remove()
        start, before = len(self.prompt) - 1, self.clean.log_softmax(-1)
        nll = max(-after[start + step, token] for step, token in enumerate(self.answer))
        kl = sum((before[at].exp() * (before[at] - after[at])).sum() for at in range(start)) / max(start, 1)
        penalty = max(-(1 - after[-1, token].exp()).log() for token in self.answer)
        norm = vectors.pow(2).sum().sqrt() if vectors.any() else 0.0 * vectors.sum()
        hparams = self.hparams
        terms = (nll, hparams.alpha * kl, hparams.beta * penalty, hparams.gamma * norm)
        return torch.stack([torch.as_tensor(term, dtype=after.dtype) for term in terms])

    def train(self, neurons):
        """(vectors [N, d_model], terms before every step and at the end)."""
        vectors = torch.zeros(len(neurons), 32, dtype=self.model.dtype, requires_grad=True)
        optimiser, history = torch.optim.Adam([vectors], lr=self.hparams.lr), []
        for step in range(self.hparams.epochs + 1):
            terms = self.terms(neurons, vectors)
            history.append(terms.detach())
            stop = self.hparams.early_stop_prob
            reached = stop is not None and terms[0] < -torch.log(torch.tensor(stop, dtype=terms.dtype))
            if step == self.hparams.epochs or reached:
                return vectors.detach(), torch.stack(history)
            optimiser.zero_grad()
            terms.sum().backward()
            optimiser.step()
