"""Seconds and memory per edit: FiNE as released, executed plainly, and ours, same model and requests, in
turns.

    python -m benchmarks.fine

The peer does what the release does: one product of down projection and unembedding vector for each layer and
    token to choose
neurons; in each step the whole model on one request, logits at every position. Both train in float32, without
an early stop, on the same weights, and put them back. A random Llama (hidden 512, d_ff 2048, 12 layers,
vocabulary 32,000), one CPU thread. Its neurons are spread over all layers; those of trained models lie in the
upper half (paper, Figures 4 and 6), which the last row takes alone.
"""

import statistics
import sys

import torch
from torch.nn import functional

from benchmarks import timing
from benchmarks.editing import requests, stages
from benchmarks.memory import peak_bytes, readable
from benchmarks.models import SHAPES, random_llama
from easyedit_neuron.arch.frozen import frozen_parameters
from easyedit_neuron.arch.tokens import target_token_ids
from easyedit_neuron.models.fine.fine_hparams import FiNEHyperParams
from easyedit_neuron.models.fine.fine_main import apply_fine_to_model


def released(model, tok, request: dict, hparams) -> dict[tuple[int, int], torch.Tensor]:
    """{(layer, neuron): what is added to its column}; the weights are copied, changed and put back."""
    answer = target_token_ids(tok, request["target_new"])
    prompt = tok(request["prompt"])["input_ids"]
    ids, device = torch.tensor([prompt + answer], device=model.device), model.device
    end, labels = len(prompt) - 1, torch.tensor(answer, device=model.device)
    down = {n: model.model.layers[n].mlp.down_proj for n in hparams.searched_layers(len(model.model.layers))}
    numbers, activations = list(down), {}
    handles = [
        module.register_forward_hook(lambda _module, args, _out, n=n: activations.update({n: args[0][0]}))
        for n, module in down.items()
    ]
    with torch.no_grad():
        before = model(input_ids=ids).logits[0]
        for handle in handles:
            handle.remove()
        chosen = []
        for step in range(len(answer)):
            token = before[end + step].argmax()
            scores = torch.stack(
                [
                    activations[n][end + step] * (module.weight.T @ model.lm_head.weight[token])
                    for n, module in down.items()
                ]
            )
            best = scores.flatten().topk(hparams.neuron_num).indices.tolist()
            chosen += [(numbers[i // scores.shape[1]], i % scores.shape[1]) for i in best]
    vectors = torch.zeros(len(chosen), model.config.hidden_size, device=device, requires_grad=True)
    opt = torch.optim.Adam([vectors], lr=hparams.lr)

    def hook(number):
        mine = [i for i, (layer, _) in enumerate(chosen) if layer == number]
        units = [chosen[i][1] for i in mine]
        return lambda _module, args, out: out + args[0][:, :, units] @ vectors[mine]

    touched = {layer for layer, _ in chosen}
    handles = [down[number].register_forward_hook(hook(number)) for number in touched]
    with frozen_parameters(model):
        for _ in range(hparams.epochs):
            logits = model(input_ids=ids).logits[0]
            nll = functional.cross_entropy(logits[end:-1], labels, reduction="none").max()
            kl = functional.kl_div(
                logits[:end].log_softmax(-1), before[:end].softmax(-1), reduction="batchmean"
            )
            penalty = (-torch.log(1 - logits[-1].softmax(-1)[labels])).max()
            loss = nll + hparams.alpha * kl + hparams.beta * penalty + hparams.gamma * torch.norm(vectors)
            opt.zero_grad()
            loss.backward()
            opt.step()
    for handle in handles:
        handle.remove()
    originals, found = {number: down[number].weight.detach().clone() for number in touched}, {}
    with torch.no_grad():
        for (layer, neuron), vector in zip(chosen, vectors.detach()):
            down[layer].weight[:, neuron] += vector
            found[layer, neuron] = found.get((layer, neuron), 0) + vector
        for number, weight in originals.items():
            down[number].weight.copy_(weight)
    return found


def largest_difference(record, theirs: dict[tuple[int, int], torch.Tensor]) -> float:
    """Largest relative difference of what is added to a column; infinite where other neurons were chosen."""
    ours = {
        (delta.info["layer"], unit): vector
        for delta in record.units.values()
        for unit, vector in zip(delta.units.tolist(), delta.vectors)
    }
    if ours.keys() != theirs.keys():
        return float("inf")
    return max(float((ours[place] - vector.cpu()).norm() / vector.norm()) for place, vector in theirs.items())


def main(arguments: list[str] | None = None) -> int:
    """Entry point; 1 where the two do not find the same edit."""
    parser = timing.parser(__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=sorted(SHAPES), default="80m")
    for name, default in {"repeats": 3, "steps": 50, "batch": 8, "threads": 1}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    model, tok = random_llama(args.shape, device=args.device)
    take, results, memory = requests(), [], {}
    hparams = FiNEHyperParams(
        alg_name="FiNE", model_name="random", device=args.device, epochs=args.steps, early_stop_prob=None
    )

    def ours(some, hparams):
        records = []
        _, weights = apply_fine_to_model(model, tok, some, hparams, return_orig_weights=True, records=records)
        with torch.no_grad():
            for name, weight in weights.items():
                model.get_parameter(name).copy_(weight)
        return records[0]

    def compare(name, hparams, batch):
        records, parts = [], [take(batch) for _ in range(args.repeats)]
        theirs, mine = (
            iter([part[0] for part in parts]),
            iter(parts),
        )  # one request of the peer beside a batch of ours
        result = timing.alternate(
            lambda: released(model, tok, next(theirs), hparams),
            lambda: records.append(ours(next(mine), hparams)),
            args.repeats,
            warm_up=0,
        )
        row = timing.report(name, timing.Result(result.peer, [spent / batch for spent in result.ours]))
        row["modified_parameters"] = [record.info["modified_parameters"] / batch for record in records]
        row["stages"] = stages(records, batch)
        told = ", ".join(f"{stage} {spent * 1e3:.0f} ms" for stage, spent in row["stages"].items())
        print(f"    stages: {told}; {statistics.mean(row['modified_parameters']):.0f} parameters", flush=True)
        memory[name] = peak_bytes(lambda: ours(parts[0], hparams), args.device)
        results.append(row)

    (request,) = take(1)
    record, theirs = ours([request], hparams), released(model, tok, request, hparams)  # the warm-up
    difference = largest_difference(record, theirs)
    where = ", ".join(record.info["neurons_per_layer"])
    print(f"{len(theirs)} neurons in layers {where}, largest relative difference {difference:.1e}")
    if difference > 1e-3:
        print("the two do not find the same edit: no timing")
        return 1
    memory["peer"] = peak_bytes(lambda: released(model, tok, request, hparams), args.device)
    compare("one edit at a time", hparams, 1)
    compare(f"batch of {args.batch}, per edit", hparams, args.batch)
    compare(
        "one at a time, upper half",
        hparams.override({"layer_start": SHAPES[args.shape]["num_hidden_layers"] // 2}),
        1,
    )
    print(
        "peak memory of an edit beside the model: "
        + ", ".join(f"{name} {readable(count)}" for name, count in memory.items())
    )
    timing.write_json(
        args.json, results, memory=memory, difference=difference, steps=args.steps, shape=args.shape
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
