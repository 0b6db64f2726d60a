"""Log-probability shift of all neurons of a layer: the released formula, prompt by prompt, in turns with
ours.

    python -m benchmarks.attribution

The peer computes what NMKE's release does: each neuron's amplified residual stream through the frozen norm
and the unembedding, all logits of a block of neurons at a time, softmax, clamped logarithm, one prompt after
the other. Both start from the same hidden states of a random Llama. The floor is the product U W_down alone,
once, and as many powers of two as there are neurons times tokens times prompts, in blocks that fit into a
CPU's cache.
"""

import statistics
import sys

import torch

from benchmarks import timing
from benchmarks.models import random_llama
from easyedit_neuron.arch.tokens import pad
from easyedit_neuron.arch.view import ModelView
from easyedit_neuron.attribution import Readings, read_prompts, score_readings

AMPLIFY, LAYER, BLOCK = 30.0, 0, 512


def released(model, readings: Readings) -> torch.Tensor:
    """Scores [prompts, d_ff]."""
    down, unembedding = model.model.layers[LAYER].mlp.down_proj.weight, model.lm_head.weight
    norm = model.model.norm
    scores = torch.empty_like(readings.activations[LAYER])
    for row, token in enumerate(readings.top1):
        stream, q = readings.resid_mid[LAYER][row], readings.activations[LAYER][row]
        rms = (readings.final_hidden[row].square().mean() + norm.variance_epsilon).sqrt()

        def log_probability(hidden, rms=rms, token=token):
            logits = (hidden / rms * norm.weight) @ unembedding.T
            return logits.softmax(-1)[..., token].clamp(min=1e-8).log()

        for start in range(0, len(q), BLOCK):
            neurons = slice(start, start + BLOCK)
            amplified = stream + AMPLIFY * (q[neurons] * down[:, neurons]).T
            scores[row, neurons] = log_probability(amplified) - log_probability(stream)
    return scores


def floor(model, prompts: int) -> tuple[float, float]:
    """Seconds of the product alone and of the powers of two alone."""
    down, unembedding = model.model.layers[LAYER].mlp.down_proj.weight, model.lm_head.weight
    rows = 2048
    product = torch.empty(rows, down.shape[1], dtype=down.dtype, device=down.device)
    exponents = torch.randn(1 << (16 if down.device.type == "cpu" else 24), device=down.device)
    powers = torch.empty_like(exponents)

    def multiply():
        for part in unembedding.split(rows):
            torch.mm(part, down, out=product[: len(part)])

    def exponentiate():
        for _ in range(round(len(unembedding) * down.shape[1] * prompts / len(exponents))):
            torch.exp2(exponents, out=powers)

    return timing.seconds(multiply), timing.seconds(exponentiate)


@torch.no_grad()
def main(argv: list[str] | None = None) -> int:
    """Entry point; 1 where the two give different scores."""
    sizes = dict(prompts=4, hidden=768, d_ff=4096, vocabulary=32000)
    args = timing.parse(timing.parser(__doc__, **sizes, repeats=2, threads=1), argv)
    model, _ = random_llama(
        "80m",
        device=args.device,
        hidden_size=args.hidden,
        intermediate_size=args.d_ff,
        num_hidden_layers=1,
        vocab_size=args.vocabulary,
    )
    view, random = ModelView.of(model), torch.Generator().manual_seed(0)
    texts = [
        torch.randint(3, args.vocabulary, (8 + row % 5,), generator=random).tolist()
        for row in range(args.prompts)
    ]
    readings = read_prompts(view, pad(texts, args.device), [LAYER])

    def ours():
        return score_readings(view, readings, "lps", AMPLIFY).scores[LAYER]

    expected = released(model, readings)  # the warm-up
    difference = float((expected - ours()).abs().max())
    print(
        f"vocabulary {args.vocabulary}, d_ff {args.d_ff}, d_model {args.hidden}, {args.prompts} prompts; "
        f"scores up to {float(expected.abs().max()):.2f}, largest difference {difference:.1e}"
    )
    if difference > 1e-4:
        print("the two do not compute the same: no timing")
        return 1
    result = timing.alternate(lambda: released(model, readings), ours, args.repeats, warm_up=0)
    row = timing.report("log-probability shift, one layer", result)
    product, powers = floor(model, args.prompts)
    row["floor_seconds"] = {"product": product, "powers": powers}
    parts = timing.milliseconds({"product": product, "powers of two": powers})
    share = statistics.median(result.ours) / (product + powers)
    print(f"    floor: {parts}; ours is {share:.2f} times that")
    timing.save(args, [row], difference=difference)
    return 0


if __name__ == "__main__":
    sys.exit(main())
