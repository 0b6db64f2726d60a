"""Seconds per edit at the size of Llama-3-8B, by stage, and peak memory; the target is 1 s an edit.

    python -m benchmarks.llama3_8b

Random bfloat16 weights of the real model's shape on a GPU, layers 4 to 8, 25 steps for z*, five contexts and
the bare prompt; NMKE with LPS and MPC, and AlphaEdit without a mask. The statistics are drawn: to measure
them takes a large text, and what an edit costs does not depend on what they say. Their null-space bases are
as wide as bases get. Tokens are those of the shipped tokenizer.

What the run needs is worked out first (``memory.bytes_needed``) and printed; without a GPU, or with less free
memory than that, nothing is loaded and the exit status is 2. ``--shape tiny --device cpu`` runs the same
program anywhere.
"""

import statistics
import sys
from pathlib import Path

import torch
from transformers import AutoTokenizer

from easyedit_neuron import resources
from easyedit_neuron.arch.view import ModelView
from easyedit_neuron.edits.request import prepare
from easyedit_neuron.edits.session import forget
from easyedit_neuron.locate_then_edit.z_prompts import target_prompts
from easyedit_neuron.models.alphaedit.alphaedit_hparams import AlphaEditHyperParams
from easyedit_neuron.models.alphaedit.alphaedit_main import apply_alphaedit_to_model
from easyedit_neuron.models.nmke.nmke_hparams import NMKEHyperParams
from easyedit_neuron.models.nmke.nmke_main import apply_nmke_to_model
from easyedit_neuron.statistics.memory_use import readable

from . import timing
from .editing import LAYERS, contexts, prepared, requests, settings, stages
from .memory import Rows, bytes_needed, process_peak, table, widest_basis
from .models import SHAPES, random_llama

TARGET = 1.0  # seconds an edit

METHODS = {
    "lps": (NMKEHyperParams, apply_nmke_to_model, dict(alg_name="NMKE", attribution="lps")),
    "mpc": (NMKEHyperParams, apply_nmke_to_model, dict(alg_name="NMKE", attribution="mpc")),
    "alphaedit": (AlphaEditHyperParams, apply_alphaedit_to_model, {}),
}
"""Name -> hyperparameters, entry point, and what is set; all on the alphaedit path with ``mask_stage:
post``."""


def hyperparameters(name: str, args):
    """Of one method."""
    kind, _, changes = METHODS[name]
    return kind(
        **settings("not used", contexts(), device=args.device, solve_dtype=args.solve_dtype, **changes)
    )


def needs(args) -> dict[str, int]:
    """``bytes_needed`` of the most demanding method on the very requests that will be edited."""
    tok = AutoTokenizer.from_pretrained(resources.model_path("tiny-llama"))
    take, hparams = requests(), hyperparameters("alphaedit", args)
    batches = [prepare(take(args.batch)) for _ in range(args.repeats + 1)]
    rows = Rows.widest(
        Rows.of(target_prompts(tok, batch, ["{}", *contexts()], hparams.kl_prompt, "cpu"))
        for batch in batches
    )
    several = [
        bytes_needed(
            SHAPES[args.shape],
            getattr(torch, args.dtype),
            LAYERS,
            rows,
            edits=args.repeats + 1,
            device=args.device,
            solve_dtype=getattr(torch, args.solve_dtype),
            scores=METHODS[name][2].get("attribution"),
        )
        for name in args.methods
    ]
    return max(several, key=lambda one: sum(one.values()))


def refusal(args, needed: int) -> str | None:
    """Why this machine cannot run it, or None."""
    if torch.device(args.device).type == "cuda" and not torch.cuda.is_available():
        return "there is no CUDA device here; '--shape tiny --device cpu' runs the same program without one"
    free = timing.free_bytes(args.device)
    if needed > free:
        return f"at most {readable(needed)} are needed and {readable(free)} are free on {args.device}; free some, or see --help"
    return None


def measure(name: str, model, tok, args) -> dict:
    """Edits by one method, each on top of the one before."""
    apply, hparams, take, batch = METHODS[name][1], hyperparameters(name, args), requests(), args.batch
    view = ModelView.of(model)
    prepared(view, tok, hparams, widest_basis(view.d_ff))
    if torch.device(args.device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(args.device)
    records = []
    apply(model, tok, take(batch), hparams, records=records)  # the warm-up
    times = [
        timing.seconds(lambda: apply(model, tok, take(batch), hparams, records=records)) / batch
        for _ in range(args.repeats)
    ]
    forget(model)
    median, by_stage = statistics.median(times), stages(records[1:], batch)
    by_stage["writing and the rest"] = median - sum(by_stage.values())
    peak = process_peak(args.device)
    verdict = "" if args.shape != "llama3-8b" else f": {median / TARGET:.2f} of the target"
    print(
        f"{name:<10} {median:.3f} s an edit ({min(times):.3f} to {max(times):.3f}, {len(times)} runs, batch {batch}){verdict}"
    )
    print("    stages: " + ", ".join(f"{stage} {value * 1e3:.0f} ms" for stage, value in by_stage.items()))
    print("    peak: " + ", ".join(f"{where} {readable(count)}" for where, count in peak.items()), flush=True)
    return {"method": name, "seconds": times, "stages": by_stage, "peak": peak}


def main(argv: list[str] | None = None) -> int:
    """Entry point; 2 where this machine cannot run it."""
    parser = timing.parser(__doc__.splitlines()[0])
    parser.set_defaults(device="cuda")
    parser.add_argument("--shape", choices=list(SHAPES), default="llama3-8b")
    parser.add_argument(
        "--dtype", choices=["bfloat16", "float16", "float32"], default="bfloat16", help="of the weights"
    )
    parser.add_argument(
        "--solve-dtype", choices=["float64", "float32"], default="float64", help="of what the solvers keep"
    )
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--batch", type=int, default=1, help="requests that are edited together")
    parser.add_argument("--repeats", type=int, default=5, help="calls measured, after one that is not")
    args = parser.parse_args(argv)
    if args.batch < 1 or args.repeats < 1:
        parser.error("--batch and --repeats start at 1")
    bound = needs(args)
    print(
        f"{args.shape}, {args.dtype}, batch {args.batch}: memory on {args.device} is at most\n{table(bound)}",
        flush=True,
    )
    reason = refusal(args, sum(bound.values()))
    if reason:
        sys.stderr.write(f"not run: {reason}\n")
        return 2
    model, tok = random_llama(args.shape, getattr(torch, args.dtype), args.device)
    results = [measure(name, model, tok, args) for name in args.methods]
    timing.write_json(
        args.json,
        results,
        bytes_needed=bound,
        **{k: v for k, v in vars(args).items() if not isinstance(v, Path)},
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
