"""Seconds per edit at the size of Llama-3-8B, by stage, and peak memory; the target is 1 s an edit.

    python -m benchmarks.llama3_8b

Random bfloat16 weights of the real model's shape on a GPU, layers 4 to 8, 25 steps for z*, five contexts and
the bare prompt; NMKE with LPS and MPC, and AlphaEdit without a mask. The statistics are drawn, with
null-space bases as wide as they get: what an edit costs does not depend on their values. Tokens are those of
the shipped tokenizer.

An estimate of the memory is printed first; without a GPU, or with less free memory than that, nothing is
loaded and the exit status is 2. ``--shape tiny --device cpu`` runs the same program anywhere.
"""

import statistics
import sys

import torch

from easyedit_neuron.arch.view import ModelView
from easyedit_neuron.edits.request import prepare
from easyedit_neuron.edits.session import forget
from easyedit_neuron.locate_then_edit.z_prompts import z_prompts
from easyedit_neuron.models.alphaedit.alphaedit_hparams import AlphaEditHyperParams
from easyedit_neuron.models.alphaedit.alphaedit_main import apply_alphaedit_to_model
from easyedit_neuron.models.nmke.nmke_hparams import NMKEHyperParams
from easyedit_neuron.models.nmke.nmke_main import apply_nmke_to_model
from easyedit_neuron.statistics.memory_use import readable

from . import memory, timing
from .editing import LAYERS, contexts, prepared, requests, settings, stages
from .models import SHAPES, random_llama, tokenizer

TARGET = 1.0  # seconds an edit
METHODS = {
    "lps": (NMKEHyperParams, apply_nmke_to_model, dict(alg_name="NMKE", attribution="lps")),
    "mpc": (NMKEHyperParams, apply_nmke_to_model, dict(alg_name="NMKE", attribution="mpc")),
    "alphaedit": (AlphaEditHyperParams, apply_alphaedit_to_model, {}),
}
"""Name -> hyperparameters, entry point, and changed settings; all with ``mask_stage: post``."""


def hyperparameters(name: str, args):
    """Of one method."""
    kind, _, changes = METHODS[name]
    return kind(
        **settings("not used", contexts(), device=args.device, solve_dtype=args.solve_dtype, **changes)
    )


def bytes_needed(args) -> dict[str, int]:
    """``memory.bytes_needed`` for the very requests that will be edited."""
    tok, take, kl_prompt = tokenizer(), requests(), hyperparameters("alphaedit", args).kl_prompt
    batches = [prepare(take(args.batch)) for _ in range(args.repeats + 1)]
    rows = [z_prompts(tok, batch, ["{}", *contexts()], kl_prompt, "cpu").targets.batch for batch in batches]
    tokens = max(batch.input_ids.numel() for batch in rows)
    dtypes = getattr(torch, args.dtype), getattr(torch, args.solve_dtype)
    return memory.bytes_needed(args.shape, *dtypes, LAYERS, tokens, args.device)


def refusal(args, needed: int) -> str | None:
    """Why this machine cannot run it, or None."""
    if torch.device(args.device).type == "cuda" and not torch.cuda.is_available():
        return "there is no CUDA device here; '--shape tiny --device cpu' runs the same program without one"
    free = memory.free_bytes(args.device)
    if needed > free:
        return (
            f"at most {readable(needed)} are needed and {readable(free)} are free on {args.device}; "
            "free some, or see --help"
        )
    return None


def measure(name: str, model, tok, args) -> dict:
    """Edits by one method, each on top of the one before."""
    apply, hparams, take, batch = METHODS[name][1], hyperparameters(name, args), requests(), args.batch
    view = ModelView.of(model)
    prepared(view, tok, hparams, memory.widest_basis(view.d_ff))
    memory.reset_peak(args.device)
    records = []
    apply(model, tok, take(batch), hparams, records=records)  # the warm-up
    times = [
        timing.seconds(apply, model, tok, take(batch), hparams, records=records) / batch
        for _ in range(args.repeats)
    ]
    forget(model)
    median, by_stage = statistics.median(times), stages(records[1:], batch)
    by_stage["writing and the rest"] = median - sum(by_stage.values())
    peak = memory.process_peak(args.device)
    verdict = f": {median / TARGET:.2f} of the target" if args.shape == "llama3-8b" else ""
    span = f"{min(times):.3f} to {max(times):.3f}, {len(times)} runs, batch {batch}"
    print(f"{name:<10} {median:.3f} s an edit ({span}){verdict}")
    print(f"    stages: {timing.milliseconds(by_stage)}")
    print("    peak: " + ", ".join(f"{where} {readable(count)}" for where, count in peak.items()), flush=True)
    return {"method": name, "seconds": times, "stages": by_stage, "peak": peak}


def main(argv: list[str] | None = None) -> int:
    """Entry point; 2 where this machine cannot run it."""
    parser = timing.parser(__doc__, batch=1, repeats=5)
    parser.set_defaults(device="cuda")
    parser.add_argument("--shape", choices=list(SHAPES), default="llama3-8b")
    dtypes = ["bfloat16", "float16", "float32"]
    parser.add_argument("--dtype", choices=dtypes, default="bfloat16", help="of the weights")
    solve_dtypes = ["float64", "float32"]
    parser.add_argument("--solve-dtype", choices=solve_dtypes, default="float64", help="of the solvers")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    args = timing.parse(parser, argv)
    if args.batch < 1 or args.repeats < 1:
        parser.error("--batch and --repeats start at 1")
    needs = bytes_needed(args)
    print(f"{args.shape}, {args.dtype}, batch {args.batch}: memory on {args.device} is at most")
    print(memory.table(needs), flush=True)
    reason = refusal(args, sum(needs.values()))
    if reason:
        sys.stderr.write(f"not run: {reason}\n")
        return 2
    model, tok = random_llama(args.shape, getattr(torch, args.dtype), args.device)
    results = [measure(name, model, tok, args) for name in args.methods]
    timing.write_json(args, results, bytes_needed=needs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
