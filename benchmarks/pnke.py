"""PNKE: seconds, passes and memory of finding the neurons, plainly and ours, same model and prompts, in
turns; whole edits by stage.

    python -m benchmarks.pnke

The peer reads each of the 10 prompts of P_sem in a pass of its own through the whole model, and takes each of
the 20 points of the path of each edited layer in a forward and a backward pass of the whole model: the
    paper's "30 evaluations", 20 of them for every layer. Both
end with the same scores of the neurons; the last row takes the points of the shipped files
(benchmarks.quadrature). Whole edits (Table 3) are by Eq. 10 and by Adam (Eq. 9), with drawn covariances. A
random Llama (hidden 512, d_ff 2048, 12 layers, vocabulary 32,000), one CPU thread.
"""

import sys

import torch

from benchmarks import timing
from benchmarks.editing import LAYERS, contexts, prepared, requests, settings, stages
from benchmarks.memory import peak_bytes, readable
from benchmarks.models import SHAPES, random_llama
from easyedit_neuron.arch import ModelView
from easyedit_neuron.arch.calls import ModelCalls
from easyedit_neuron.arch.tokens import target_token_ids
from easyedit_neuron.attribution.quadrature import nodes
from easyedit_neuron.edits.request import prepare
from easyedit_neuron.masks import CausalScores
from easyedit_neuron.masks import ScoringContext
from easyedit_neuron.models.pnke.pnke_hparams import PNKEHyperParams
from easyedit_neuron.models.pnke.pnke_main import apply_pnke_to_model
from easyedit_neuron.models.pnke.pnke_scores import causal

M, STEPS, FEWER = 10, 20, 8


def plain(model, tok, request, prompts: list[str]) -> dict[int, CausalScores]:
    """Algorithms 2 and 3 up to the thresholds: one prompt, one point of one path at a time."""
    down = {layer: model.model.layers[layer].mlp.down_proj for layer in LAYERS}
    semantic: dict[int, list[torch.Tensor]] = {layer: [] for layer in LAYERS}
    handles = [
        module.register_forward_hook(
            lambda _module, args, _out, layer=layer: semantic[layer].append(args[0][0, -1])
        )
        for layer, module in down.items()
    ]
    with torch.no_grad():
        for text in [*prompts, request.text]:
            model(input_ids=torch.tensor([tok(text)["input_ids"]], device=model.device))
    for handle in handles:
        handle.remove()
    ids = torch.tensor([tok(request.text)["input_ids"]], device=model.device)
    answer = target_token_ids(tok, request.target_new)[0]
    found = {}
    for layer, module in down.items():
        *prompts_q, q = semantic[layer]
        slope = torch.zeros_like(q)
        for alpha, weight in zip(*nodes("gauss", STEPS)):
            point = (alpha.to(q) * q).requires_grad_()

            def put(_module, args, point=point):
                moved = args[0].clone()
                moved[0, -1] = point
                return (moved,)

            handle = module.register_forward_pre_hook(put)
            probability = model(input_ids=ids).logits[0, -1].softmax(-1)[answer]
            handle.remove()
            slope += weight.to(q) * torch.autograd.grad(probability, point)[0]
        found[layer] = CausalScores(q, torch.stack(prompts_q), q * slope)
    return found


def ours(
    view: ModelView, tok, some, templates: list[str], steps: int, at_once: int = 64
) -> tuple[dict[int, list[CausalScores]], dict]:
    """(scores, cost report), with so many prompts and points of paths in a pass."""
    edit = Edit(view, tok, some, [["{}"], templates], LAYERS)
    scores = causal(
        edit, psem_size=M, psem_sources=["context"], steps=steps, step_batch=at_once, prompt_batch=at_once
    )
    return scores, edit.report["identification"]


def largest_difference(theirs: dict[int, CausalScores], mine: dict[int, list[CausalScores]]) -> float:
    """Of activations and attributions, relative to the largest of a layer."""
    worst = 0.0
    for layer, one in theirs.items():
        for name in ("specific", "semantic", "attribution"):
            expected, found = getattr(one, name), getattr(mine[layer][0], name)
            worst = max(worst, float((expected - found).abs().max() / expected.abs().max()))
    return worst


def main(arguments: list[str] | None = None) -> int:
    """Entry point; 1 where the two do not find the same scores."""
    parser = timing.parser(__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=sorted(SHAPES), default="80m")
    for name, default in {"repeats": 3, "batch": 4, "threads": 1}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    model, tok = random_llama(args.shape, device=args.device)
    view, take, templates = ModelView.of(model), requests(), contexts(M)

    def search(one):
        return plain(model, tok, one, [template.replace("{}", one.text) for template in templates])

    some = prepare(take(args.batch))
    with ModelCalls(view) as calls:
        theirs = search(some[0])
    difference = largest_difference(theirs, ours(view, tok, some[:1], templates, STEPS)[0])
    print(f"largest difference of the scores {difference:.1e}")
    if difference > 1e-3:
        print("the two do not find the same scores: no timing")
        return 1
    results = []
    cases = (
        ("one request", 1, 64, STEPS),
        ("one request, 4 rows a pass", 1, 4, STEPS),
        (f"batch of {args.batch}, per request", args.batch, 64, STEPS),
        (f"the same with {FEWER} points", args.batch, 64, FEWER),
    )
    for name, batch, at_once, steps in cases:

        def find():
            return ours(view, tok, some[:batch], templates, steps, at_once)

        result = timing.alternate(lambda: search(some[0]), find, args.repeats, warm_up=0)
        row = timing.report(
            f"finding the neurons, {name}",
            timing.Result(result.peer, [spent / batch for spent in result.ours]),
        )
        row["passes"] = {"peer": calls.to_json(), "ours": find()[1]["passes"]}
        for who, passes in row["passes"].items():
            share = 1 if who == "peer" else batch
            print(
                f"    {who:<5} calls {passes['forward_calls']:4} forward {passes['backward_calls']:4} backward; per request "
                f"{passes['forward_equivalents'] / share:6.1f} forward and {passes['backward_equivalents'] / share:6.1f} backward "
                "passes of the whole model"
            )
        memory = [peak_bytes(run, args.device) for run in (lambda: search(some[0]), find)]
        row["memory"] = dict(zip(("peer", "ours"), memory))
        print(
            f"    memory beside the model: peer {readable(memory[0])}, ours {readable(memory[1])}, ratio {memory[0] / memory[1]:.2f}"
        )
        results.append(row)
    for solver in ("closed_form", "adam"):
        hparams = PNKEHyperParams(
            **settings(
                "not used",
                templates,
                alg_name="PNKE",
                L2=0.1,
                psem_sources=["context"],
                solver=solver,
                adam_lr=1e-4,
                mom2_update_weight=1.0,
                activation_position="subject_last",
            )
        )
        prepared(view, tok, hparams, view.d_ff // 10)
        records: list = []

        def edit():
            _, weights = apply_pnke_to_model(
                model, tok, take(1), hparams, return_orig_weights=True, records=records
            )
            with torch.no_grad():
                for name, weight in weights.items():
                    model.get_parameter(name).copy_(weight)

        edit()  # the warm-up
        spent = [timing.seconds(edit) for _ in range(args.repeats)]
        parts = stages(records[1:])
        told = ", ".join(f"{stage} {seconds * 1e3:.0f} ms" for stage, seconds in parts.items())
        peak = peak_bytes(edit, args.device)
        print(
            f"whole edit, {solver:<11} {min(spent):.2f} to {max(spent):.2f} s ({told}); memory beside the model {readable(peak)}"
        )
        results.append({"name": solver, "seconds": spent, "stages": parts, "memory": peak})
    timing.write_json(args.json, results, difference=difference, shape=args.shape, batch=args.batch)
    return 0


if __name__ == "__main__":
    sys.exit(main())
