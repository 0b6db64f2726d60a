"""Seconds and memory per edit: FiNE as released, executed plainly, and ours, in turns.

    python -m benchmarks.fine

The peer does what the release does. It chooses neurons by one product of down projection and unembedding
vector for each layer and token; each training step runs the whole model on one request, with logits at every
position. Both train in float32, without an early stop, on the same weights, and put them back. A random Llama
(hidden 512, d_ff 2048, 12 layers, vocabulary 32,000), one CPU thread. Its neurons are spread over all layers;
those of trained models lie in the upper half (paper, Figures 4 and 6), which the last row takes alone.
"""

import statistics
import sys

import torch
from torch.nn import functional

from benchmarks import timing
from benchmarks.editing import compare_edits, edit_and_restore, requests
from benchmarks.memory import peak_bytes, readable
from benchmarks.models import SHAPES, random_llama
from easyedit_neuron.arch.tokens import target_token_ids
from easyedit_neuron.arch.view import frozen_parameters
from easyedit_neuron.models.fine.fine_hparams import FiNEHyperParams
from easyedit_neuron.models.fine.fine_main import apply_fine_to_model

Neuron = tuple[int, int]
"""(layer, index in d_ff)."""


def released(model, tok, request: dict, hparams) -> dict[Neuron, torch.Tensor]:
    """{neuron: what is added to its column}; the weights are copied, changed and put back."""
    answer = target_token_ids(tok, request["target_new"])
    prompt = tok(request["prompt"])["input_ids"]
    ids = torch.tensor([prompt + answer], device=model.device)
    down = {n: model.model.layers[n].mlp.down_proj for n in hparams.searched_layers(len(model.model.layers))}
    neurons, before = _choose_neurons(model, down, ids, len(prompt) - 1, len(answer), hparams.neuron_num)
    vectors = _train(model, down, neurons, ids, before, torch.tensor(answer, device=ids.device), hparams)
    # Write the edit and take it back, as an edit would.
    originals = {layer: down[layer].weight.detach().clone() for layer, _ in neurons}
    changes: dict[Neuron, torch.Tensor] = {}
    with torch.no_grad():
        for (layer, neuron), vector in zip(neurons, vectors):
            down[layer].weight[:, neuron] += vector
            changes[layer, neuron] = changes.get((layer, neuron), 0) + vector
        for layer, weight in originals.items():
            down[layer].weight.copy_(weight)
    return changes


@torch.no_grad()
def _choose_neurons(
    model, down: dict, ids: torch.Tensor, end: int, count: int, neuron_num: int
) -> tuple[list[Neuron], torch.Tensor]:
    """The best neurons for each of the ``count`` tokens said from position ``end`` on, and the logits."""
    activations = {}
    handles = [
        module.register_forward_hook(lambda _module, args, _out, n=n: activations.update({n: args[0][0]}))
        for n, module in down.items()
    ]
    logits = model(input_ids=ids).logits[0]
    for handle in handles:
        handle.remove()
    layers, neurons = list(down), []
    for position in range(end, end + count):
        direction = model.lm_head.weight[logits[position].argmax()]
        scores = torch.stack([activations[n][position] * (down[n].weight.T @ direction) for n in layers])
        best = scores.flatten().topk(neuron_num).indices.tolist()
        neurons += [(layers[i // scores.shape[1]], i % scores.shape[1]) for i in best]
    return neurons, logits


def _train(model, down: dict, neurons: list[Neuron], ids, before, labels, hparams) -> torch.Tensor:
    """What is added to the neurons' columns [neurons, d_model]."""
    end = ids.shape[1] - len(labels) - 1
    vectors = torch.zeros(len(neurons), model.config.hidden_size, device=ids.device, requires_grad=True)
    optimiser = torch.optim.Adam([vectors], lr=hparams.lr)

    def hook(layer):
        rows = [row for row, (other, _) in enumerate(neurons) if other == layer]
        units = [neurons[row][1] for row in rows]
        return lambda _module, args, out: out + args[0][:, :, units] @ vectors[rows]

    handles = [down[layer].register_forward_hook(hook(layer)) for layer in {layer for layer, _ in neurons}]
    with frozen_parameters(model):
        for _ in range(hparams.epochs):
            logits = model(input_ids=ids).logits[0]
            nll = functional.cross_entropy(logits[end:-1], labels, reduction="none").max()
            kl = functional.kl_div(
                logits[:end].log_softmax(-1), before[:end].softmax(-1), reduction="batchmean"
            )
            penalty = (-torch.log(1 - logits[-1].softmax(-1)[labels])).max()
            loss = nll + hparams.alpha * kl + hparams.beta * penalty + hparams.gamma * torch.norm(vectors)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    for handle in handles:
        handle.remove()
    return vectors.detach()


def largest_difference(record, expected: dict[Neuron, torch.Tensor]) -> float:
    """Largest relative difference of what is added to a column; infinite where other neurons were chosen."""
    ours = {
        (delta.info["layer"], unit): vector
        for delta in record.units.values()
        for unit, vector in zip(delta.units.tolist(), delta.vectors)
    }
    if ours.keys() != expected.keys():
        return float("inf")
    return max(float((ours[n] - vector.cpu()).norm() / vector.norm()) for n, vector in expected.items())


def main(argv: list[str] | None = None) -> int:
    """Entry point; 1 where the two do not make the same edit."""
    parser = timing.parser(__doc__, repeats=3, steps=50, batch=8, threads=1)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="80m")
    args = timing.parse(parser, argv)
    model, tok = random_llama(args.shape, device=args.device)
    take, results, memory = requests(), [], {}
    hparams = FiNEHyperParams(
        alg_name="FiNE", model_name="random", device=args.device, epochs=args.steps, early_stop_prob=None
    )

    def ours(batch, hparams):
        return edit_and_restore(apply_fine_to_model, model, tok, batch, hparams)

    (request,) = take(1)
    record, expected = ours([request], hparams), released(model, tok, request, hparams)  # the warm-up
    difference = largest_difference(record, expected)
    layers = ", ".join(record.info["neurons_per_layer"])
    print(f"{len(expected)} neurons in layers {layers}, largest relative difference {difference:.1e}")
    if difference > 1e-3:
        print("the two do not make the same edit: no timing")
        return 1
    memory["peer"] = peak_bytes(lambda: released(model, tok, request, hparams), args.device)
    upper_half = hparams.override({"layer_start": SHAPES[args.shape]["num_hidden_layers"] // 2})
    cases = (
        ("one edit at a time", hparams, 1),
        (f"batch of {args.batch}, per edit", hparams, args.batch),
        ("one at a time, upper half", upper_half, 1),
    )
    for name, changed, batch in cases:
        # One request of the peer beside a batch of ours.
        parts = [take(batch) for _ in range(args.repeats)]
        peer_parts, our_parts = iter(parts), iter(parts)
        row, records = compare_edits(
            name,
            lambda peer_parts=peer_parts, changed=changed: released(model, tok, next(peer_parts)[0], changed),
            lambda our_parts=our_parts, changed=changed: ours(next(our_parts), changed),
            args.repeats,
            batch,
            warm_up=0,
        )
        row["modified_parameters"] = [record.info["modified_parameters"] / batch for record in records]
        print(f"    {statistics.mean(row['modified_parameters']):.0f} parameters", flush=True)
        memory[name] = peak_bytes(lambda part=parts[0], changed=changed: ours(part, changed), args.device)
        results.append(row)
    peaks = ", ".join(f"{name} {readable(count)}" for name, count in memory.items())
    print(f"peak memory of an edit beside the model: {peaks}")
    timing.save(args, results, memory=memory, difference=difference)
    return 0


if __name__ == "__main__":
    sys.exit(main())
