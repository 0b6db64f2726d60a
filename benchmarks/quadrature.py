"""Points of integrated gradients: Gauss-Legendre against the Riemann sum of PNKE's 20 evaluations (B.3, C.1).

    python -m benchmarks.quadrature --layers 0 1 3
    python -m benchmarks.quadrature --model /models/llama3-8b --data counterfact-edit.json --layers 4 5 6 7 8
    \\
        --dtype bfloat16

Errors are distances from the attributions by ``--reference`` Gauss points, relative to their length, per edit
and layer. "top quarter found" is the share of the quarter of the neurons with the highest attribution (the
shipped 75th percentile). Read at the subject's last token.
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
COLUMNS = ("rule", "points", "layer", "error, median", "error, largest", "top quarter found", "seconds")


def scores(
    view: ModelView, targets: TargetTokens, layers: list[int], position, rule: str, steps: int
) -> torch.Tensor:
    """``[layers, edits, d_ff]`` attributions, float64."""
    result = integrated_gradients(view, targets, layers, position, False, steps, rule, 64)
    return torch.stack([result.scores[layer].double().cpu() for layer in layers])


def distance(reference: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """``[layers, edits]``, relative to the reference's length."""
    return (other - reference).norm(dim=-1) / reference.norm(dim=-1).clamp_min(1e-30)


def agreement(reference: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """``[layers, edits]``: share of the reference's top quarter that is in the other's."""
    count = round(TOP * reference.shape[-1])
    expected, actual = (
        torch.zeros_like(values, dtype=torch.bool).scatter_(-1, values.topk(count, -1).indices, True)
        for values in (reference, other)
    )
    return (expected & actual).sum(-1) / count


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    parser = timing.parser(__doc__, edits=12, riemann=20, reference=64)
    parser.add_argument(
        "--model", default="tiny-llama", help="a shipped model or a folder (default: %(default)s)"
    )
    parser.add_argument("--data", default="tiny-world", help="edits (default: %(default)s)")
    parser.add_argument("--layers", type=int, nargs="+", default=[1])
    points = [3, 4, 5, 6, 8, 10, 20]
    parser.add_argument(
        "--points", type=int, nargs="+", default=points, help="of Gauss (default: %(default)s)"
    )
    parser.add_argument("--dtype", default="float32", choices=["float64", "float32", "bfloat16"])
    args = timing.parse(parser, argv)
    folder = resources.model_path(args.model)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, args.dtype))
    model, tok = model.to(args.device).eval(), AutoTokenizer.from_pretrained(folder)
    view, requests = ModelView.of(model), prepare(data.load(args.data, size=args.edits))
    texts, objects = zip(*((request.text, request.target_new) for request in requests))
    targets = target_tokens(tok, list(texts), list(objects), view.input_device)
    position = torch.tensor([subject_last_index(tok, r.prompt, r.subject) for r in requests])
    reference = scores(view, targets, args.layers, position, "gauss", args.reference)
    print(timing.markdown_row(COLUMNS) + "\n" + "|---" * len(COLUMNS) + "|")
    results = []
    for rule, steps in [("right", args.riemann), *(("gauss", steps) for steps in args.points)]:
        start = time.perf_counter()
        attributions = scores(view, targets, args.layers, position, rule, steps)
        spent = time.perf_counter() - start
        errors, agreements = distance(reference, attributions), agreement(reference, attributions)
        for layer, error, agreed in zip(args.layers, errors, agreements):
            row = {
                "rule": rule,
                "points": steps,
                "layer": layer,
                "median": float(error.median()),
                "largest": float(error.max()),
                "agreement": float(agreed.mean()),
                "seconds": spent,
            }
            results.append(row)
            values = (
                f"{row['median']:.1e}",
                f"{row['largest']:.1e}",
                f"{row['agreement']:.4f}",
                f"{spent:.1f}",
            )
            print(timing.markdown_row([rule, steps, layer, *values]), flush=True)
    timing.save(args, results, edits=len(requests))
    return 0


if __name__ == "__main__":
    sys.exit(main())
