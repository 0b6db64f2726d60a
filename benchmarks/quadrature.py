"""How many points integrated gradients need: Gauss-Legendre against the Riemann sum of the paper's 20
evaluations (PNKE, B.3, C.1).

    python -m benchmarks.quadrature --layers 0 1 3
    python -m benchmarks.quadrature --model /models/llama3-8b --data counterfact-edit.json --layers 4 5 6 7 8
    --dtype bfloat16

Errors are distances from the attributions of an edit and layer by ``--reference`` Gauss points, relative to
these' length, and the share of the quarter of the neurons with the highest attribution (the shipped 75th
percentile) that is found. Read at the subject's last token.
"""

import sys
import time

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks import timing
from easyedit_neuron import data, resources
from easyedit_neuron.arch import ModelView
from easyedit_neuron.arch.tokens import subject_last_index
from easyedit_neuron.attribution import TargetTokens, integrated_gradients, target_tokens
from easyedit_neuron.edits.request import prepare

TOP = 0.25


def scores(
    view: ModelView, targets: TargetTokens, layers: list[int], position, rule: str, steps: int
) -> torch.Tensor:
    """``[layers, edits, d_ff]`` attributions, float64."""
    found = integrated_gradients(view, targets, layers, position, False, steps, rule, 64)
    return torch.stack([found.scores[layer].double().cpu() for layer in layers])


def distance(reference: torch.Tensor, found: torch.Tensor) -> torch.Tensor:
    """``[layers, edits]``, relative to the reference's length."""
    return (found - reference).norm(dim=-1) / reference.norm(dim=-1).clamp_min(1e-30)


def agreement(reference: torch.Tensor, found: torch.Tensor) -> torch.Tensor:
    """``[layers, edits]``: share of the reference's top quarter that is in the other's."""
    count = round(TOP * reference.shape[-1])
    tops = [
        torch.zeros_like(one, dtype=torch.bool).scatter_(-1, one.topk(count, -1).indices, True)
        for one in (reference, found)
    ]
    return (tops[0] & tops[1]).sum(-1) / count


def main(arguments: list[str] | None = None) -> int:
    """Entry point."""
    parser = timing.parser(__doc__.splitlines()[0])
    parser.add_argument(
        "--model", default="tiny-llama", help="name of a shipped model, or a folder (default: %(default)s)"
    )
    parser.add_argument("--data", default="tiny-world", help="edits (default: %(default)s)")
    parser.add_argument("--edits", type=int, default=12)
    parser.add_argument("--layers", type=int, nargs="+", default=[1])
    parser.add_argument(
        "--points",
        type=int,
        nargs="+",
        default=[3, 4, 5, 6, 8, 10, 20],
        help="Gauss points (default: %(default)s)",
    )
    parser.add_argument(
        "--riemann", type=int, default=20, help="points of the Riemann sum (default: %(default)s)"
    )
    parser.add_argument("--reference", type=int, default=64)
    parser.add_argument("--dtype", default="float32", choices=["float64", "float32", "bfloat16"])
    args = parser.parse_args(arguments)
    folder = resources.model_path(args.model)
    model = (
        AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, args.dtype)).to(args.device).eval()
    )
    tok, view = AutoTokenizer.from_pretrained(folder), ModelView.of(model)
    requests = prepare(data.load(args.data, size=args.edits))
    targets = target_tokens(
        tok, [one.text for one in requests], [one.target_new for one in requests], view.input_device
    )
    position = torch.tensor([subject_last_index(tok, one.prompt, one.subject) for one in requests])
    reference = scores(view, targets, args.layers, position, "gauss", args.reference)
    results = []
    print(
        "| rule | points | layer | error, median | error, largest | top quarter found | seconds |\n"
        + "|---" * 7
        + "|"
    )
    for rule, steps in [("right", args.riemann), *(("gauss", steps) for steps in args.points)]:
        start = time.perf_counter()
        found = scores(view, targets, args.layers, position, rule, steps)
        spent = time.perf_counter() - start
        for number, layer in enumerate(args.layers):
            error, agreed = (
                distance(reference[number], found[number]),
                agreement(reference[number], found[number]),
            )
            results.append(
                {
                    "rule": rule,
                    "points": steps,
                    "layer": layer,
                    "median": float(error.median()),
                    "largest": float(error.max()),
                    "agreement": float(agreed.mean()),
                    "seconds": spent,
                }
            )
            row = results[-1]
            print(
                f"| {rule} | {steps} | {layer} | {row['median']:.1e} | {row['largest']:.1e} | {row['agreement']:.4f} | {spent:.1f} |",
                flush=True,
            )
    timing.write_json(
        args.json, results, model=args.model, edits=len(requests), reference=args.reference, dtype=args.dtype
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
