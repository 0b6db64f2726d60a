"""LPS of all neurons with the exact sum over the vocabulary and with the sampled one: seconds, what they are
of an edit, and NMKE's masks.

    python -m benchmarks.vocab_sum

Each edit's prompts are its contexts, as in NMKE; masks are those of one edit with the released options. Both
sums are computed in turns in this process, from the same hidden states. An edit is NMKE's with the masks by
MPC, which cost next to nothing, all requests in one batch; the shares are of its seconds.
"""

import statistics
import sys
from types import SimpleNamespace

import torch

from benchmarks import timing
from easyedit_neuron import data
from easyedit_neuron.arch import ModelView
from easyedit_neuron.arch.load_model import load_model
from easyedit_neuron.arch.tokens import encode
from easyedit_neuron.attribution import score_readings
from easyedit_neuron.attribution.readings import read_prompts
from easyedit_neuron.locate_then_edit.context_templates import context_templates
from easyedit_neuron.models.nmke.nmke_hparams import NMKEOptions
from easyedit_neuron.models.nmke.nmke_mask import nmke_mask
from easyedit_neuron.studies.command import hparams_of
from easyedit_neuron.studies.untouched import Untouched

KINDS = ("exact", "sampled")


def mask_differences(exact: torch.Tensor, sampled: torch.Tensor, prompts_per_edit: int) -> list[float]:
    """Share of the neurons whose place in the mask differs, by edit; scores are ``[prompts, d_ff]``."""
    shares = []
    for first, second in zip(exact.split(prompts_per_edit), sampled.split(prompts_per_edit)):
        weights = [nmke_mask(scores, NMKEOptions()).weight for scores in (first, second)]
        shares.append(float((weights[0] != weights[1]).float().mean()))
    return shares


def seconds_of_an_edit(subject: Untouched, requests: list[dict], hparams) -> float:
    """Seconds of an edit in a batch of all requests, once statistics and contexts are there; taken back."""
    subject.edit(requests[:1], hparams)
    subject.restore()
    seconds = timing.seconds(subject.edit, requests, hparams)
    subject.restore()
    return seconds / len(requests)


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    parser = timing.parser(__doc__, edits=8, repeats=3)
    parser.add_argument(
        "--model", default="smollm2-135m-instruct", help="name or folder (default: %(default)s)"
    )
    parser.add_argument("--data", default="real-world", help="edits (default: %(default)s)")
    parser.add_argument("--layers", type=int, nargs="+", help="default: those of NMKE's file for the model")
    args = timing.parse(parser, argv)
    model, tok, _ = load_model(SimpleNamespace(model_name=args.model, device="cpu"))
    view = ModelView.of(model)
    contexts = [context for group in context_templates(model, tok) for context in group]
    requests = data.load(args.data, size=args.edits)
    prompts = [context.replace("{}", request["prompt"]) for request in requests for context in contexts]
    changes = {"attribution": "mpc", "batch_size": len(requests)}
    changes |= {"layers": args.layers} if args.layers else {}
    hparams = hparams_of("NMKE", args.model, None, **changes)
    readings = read_prompts(view, encode(tok, prompts), hparams.layers, 32)
    scores = {kind: score_readings(view, readings, "lps", vocab_sum=kind).scores for kind in KINDS}
    exact, sampled = (
        lambda kind=kind: score_readings(view, readings, "lps", vocab_sum=kind) for kind in KINDS
    )
    result = timing.alternate(exact, sampled, args.repeats).per_request(len(requests), len(requests))
    shares = [
        share
        for layer in hparams.layers
        for share in mask_differences(scores["exact"][layer], scores["sampled"][layer], len(contexts))
    ]
    edit = seconds_of_an_edit(Untouched(model, tok), requests, hparams)
    row = {"layers": len(hparams.layers), "edits": len(requests), "prompts": len(prompts)}
    row |= {"exact s/edit": statistics.median(result.peer), "sampled s/edit": statistics.median(result.ours)}
    row |= {"ratio": result.ratio, "edit without LPS, s": edit}
    row |= {f"{kind}, of an edit": row[f"{kind} s/edit"] / edit for kind in KINDS}
    row |= {"mask differs, mean": statistics.fmean(shares), "largest": max(shares)}
    print(timing.markdown_row(list(row)) + "\n" + "|---" * len(row) + "|")
    print(timing.markdown_row([f"{value:.4g}" for value in row.values()]))
    timing.save(args, [row], edits=len(requests))
    return 0


if __name__ == "__main__":
    sys.exit(main())
