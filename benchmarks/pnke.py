"""PNKE: seconds, passes and memory of finding the neurons, plainly and ours, in turns; whole edits by stage.

    python -m benchmarks.pnke

The peer reads each of the 10 prompts of P_sem in a pass of its own through the whole model, and takes each of
the 20 points of the path of each edited layer in a forward and a backward pass of the whole model: the
paper's "30 evaluations", 20 of them for every layer. Both end with the same scores of the neurons; the last
row takes the points of the shipped files (``benchmarks.quadrature``). Whole edits (Table 3) are by Eq. 10 and
by Adam (Eq. 9), with drawn covariances. A random Llama (hidden 512, d_ff 2048, 12 layers, vocabulary 32,000),
one CPU thread.
"""

import sys

import torch

from benchmarks import timing
from benchmarks.editing import LAYERS, contexts, edit_and_restore, prepared, requests, settings, stages
from benchmarks.memory import peak_bytes, readable
from benchmarks.models import SHAPES, random_llama
from easyedit_neuron.arch import ModelView
from easyedit_neuron.arch.calls import ModelCalls
from easyedit_neuron.arch.tokens import target_token_ids
from easyedit_neuron.attribution.quadrature import nodes
from easyedit_neuron.edits.request import prepare
from easyedit_neuron.masks import ScoringContext
from easyedit_neuron.models.pnke.pnke_hparams import PNKEHyperParams
from easyedit_neuron.models.pnke.pnke_main import apply_pnke_to_model
from easyedit_neuron.models.pnke.pnke_mask import CausalScores
from easyedit_neuron.models.pnke.pnke_options import PNKEScoringOptions
from easyedit_neuron.models.pnke.pnke_scores import pnke_scores

M, STEPS, FEWER = 10, 20, 8


def plain(model, tok, request, prompts: list[str]) -> dict[int, CausalScores]:
    """Algorithms 2 and 3 up to the thresholds: one prompt, one point of one path at a time."""
    down = {layer: model.model.layers[layer].mlp.down_proj for layer in LAYERS}
    activations: dict[int, list[torch.Tensor]] = {layer: [] for layer in LAYERS}
    handles = [
        module.register_forward_hook(
            lambda _module, args, _out, layer=layer: activations[layer].append(args[0][0, -1])
        )
        for layer, module in down.items()
    ]
    with torch.no_grad():
        for text in [*prompts, request.text]:
            ids = torch.tensor([tok(text)["input_ids"]], device=model.device)
            model(input_ids=ids)
    for handle in handles:
        handle.remove()
    answer = target_token_ids(tok, request.target_new)[0]
    scores = {}
    for layer, module in down.items():
        *semantic, q = activations[layer]
        slope = torch.zeros_like(q)
        for alpha, weight in zip(*nodes("gauss", STEPS)):
            point = (alpha.to(q) * q).requires_grad_()

            def replace_activations(_module, args, point=point):
                changed = args[0].clone()
                changed[0, -1] = point
                return (changed,)

            handle = module.register_forward_pre_hook(replace_activations)
            probability = model(input_ids=ids).logits[0, -1].softmax(-1)[answer]
            handle.remove()
            slope += weight.to(q) * torch.autograd.grad(probability, point)[0]
        scores[layer] = CausalScores(q, torch.stack(semantic), q * slope)
    return scores


def ours(
    view: ModelView, tok, batch, templates: list[str], steps: int, at_once: int = 64
) -> tuple[dict[int, list[CausalScores]], dict]:
    """Scores and cost report, with ``at_once`` prompts or points of paths in a pass."""
    context = ScoringContext(view, tok, batch, [["{}"], templates], LAYERS)
    options = PNKEScoringOptions(
        psem_size=M, psem_sources=["context"], ig_steps=steps, ig_step_batch=at_once, prompt_batch=at_once
    )
    return pnke_scores(context, options), context.report["identification"]


def largest_difference(expected: dict[int, CausalScores], scores: dict[int, list[CausalScores]]) -> float:
    """Of activations and attributions, relative to the largest of a layer."""
    worst = 0.0
    for layer, layer_scores in expected.items():
        for name in ("specific", "semantic", "attribution"):
            values = getattr(layer_scores, name)
            difference = (values - getattr(scores[layer][0], name)).abs().max()
            worst = max(worst, float(difference / values.abs().max()))
    return worst


def compare(name: str, search, find, batch: int, args) -> dict:
    """Time finding the neurons; ``search`` is the peer's for one request, ``find`` ours for ``batch``."""
    result = timing.alternate(search, find, args.repeats, warm_up=0)
    row = timing.report(f"finding the neurons, {name}", result.per_request(batch))
    row["memory"] = {side: peak_bytes(run, args.device) for side, run in (("peer", search), ("ours", find))}
    peer, own = row["memory"].values()
    print(f"    memory beside the model: peer {readable(peer)}, ours {readable(own)}, ratio {peer / own:.2f}")
    return row


def whole_edits(solver: str, model, tok, templates: list[str], take, args) -> dict:
    """Edits by one solver, each taken back."""
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
    view = ModelView.of(model)
    prepared(view, tok, hparams, view.d_ff // 10)
    records: list = []

    def edit():
        records.append(edit_and_restore(apply_pnke_to_model, model, tok, take(1), hparams))

    edit()  # the warm-up
    times = [timing.seconds(edit) for _ in range(args.repeats)]
    parts, peak = stages(records[1:]), peak_bytes(edit, args.device)
    print(
        f"whole edit, {solver:<11} {min(times):.2f} to {max(times):.2f} s ({timing.milliseconds(parts)}); "
        f"memory beside the model {readable(peak)}"
    )
    return {"name": solver, "seconds": times, "stages": parts, "memory": peak}


def main(argv: list[str] | None = None) -> int:
    """Entry point; 1 where the two do not give the same scores."""
    parser = timing.parser(__doc__, repeats=3, batch=4, threads=1)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="80m")
    args = timing.parse(parser, argv)
    model, tok = random_llama(args.shape, device=args.device)
    view, take, templates = ModelView.of(model), requests(), contexts(M)
    batch = prepare(take(args.batch))
    prompts = [template.replace("{}", batch[0].text) for template in templates]

    def search():
        return plain(model, tok, batch[0], prompts)

    with ModelCalls(view) as calls:
        expected = search()
    difference = largest_difference(expected, ours(view, tok, batch[:1], templates, STEPS)[0])
    print(f"largest difference of the scores {difference:.1e}")
    if difference > 1e-3:
        print("the two do not give the same scores: no timing")
        return 1
    results = []
    cases = (
        ("one request", 1, 64, STEPS),
        ("one request, 4 rows a pass", 1, 4, STEPS),
        (f"batch of {args.batch}, per request", args.batch, 64, STEPS),
        (f"the same with {FEWER} points", args.batch, 64, FEWER),
    )
    for name, size, at_once, steps in cases:

        def find(size=size, at_once=at_once, steps=steps):
            return ours(view, tok, batch[:size], templates, steps, at_once)

        row = compare(name, search, find, size, args)
        row["passes"] = {"peer": calls.to_json(), "ours": find()[1]["passes"]}
        for side, passes in row["passes"].items():
            count = 1 if side == "peer" else size
            calls_made = f"{passes['forward_calls']:4} forward {passes['backward_calls']:4} backward"
            forward, backward = (passes[f"{kind}_equivalents"] / count for kind in ("forward", "backward"))
            print(
                f"    {side:<5} calls {calls_made}; per request {forward:6.1f} forward and {backward:6.1f} "
                "backward passes of the whole model"
            )
        results.append(row)
    for solver in ("closed_form", "adam"):
        results.append(whole_edits(solver, model, tok, templates, take, args))
    timing.save(args, results, difference=difference)
    return 0


if __name__ == "__main__":
    sys.exit(main())
