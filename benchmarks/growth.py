"""Growth: seconds per edit and memory at edit number 1, 100, 1,000 and 5,000 of a sequence.

    python -m benchmarks.growth --methods alphaedit memit

A random Llama of 80M parameters, layers 4 to 8, single edits, earlier keys protected. Up to each number the
sequence is filled with synthetic keys (``editing.fill``) and the statistics are drawn
(``editing.DrawnStatistics``); the edits made there are real. The first of them takes up all synthetic keys at
once, which no edit of a real sequence does: it is shown apart, and number 1 is measured on the edits from the
second.

``-random``: ``mask_stage: solve`` on a random half of the neurons. Its Gram matrix takes up 256 keys at a
time, d_ff^2 a key; the edits measured here may miss the one in 256 that does.

Peer: EasyEdit's equation of the same path by ``torch.linalg.solve`` (``solve.Peer``), one layer timed beside
every edit at the first number, times the number of layers; its cost does not depend on the earlier edits.
"""

import statistics
import sys

import torch

from easyedit_neuron.arch.view import ModelView
from easyedit_neuron.edits.session import forget
from easyedit_neuron.edits.write import clone_weights, down_names, restore
from easyedit_neuron.models.alphaedit.alphaedit_hparams import AlphaEditHyperParams
from easyedit_neuron.models.alphaedit.alphaedit_main import apply_alphaedit_to_model
from easyedit_neuron.models.memit.memit_hparams import MEMITHyperParams
from easyedit_neuron.models.memit.memit_main import apply_memit_to_model

from . import synthetic, timing
from .editing import LAYERS, contexts, fill, prepared, requests, settings, stages
from .memory import process_peak, reset_peak
from .models import SHAPES, random_llama
from .solve import Peer

METHODS = {
    "alphaedit": (AlphaEditHyperParams, apply_alphaedit_to_model, dict(alg_name="AlphaEdit")),
    "memit": (MEMITHyperParams, apply_memit_to_model, dict(alg_name="MEMIT", accumulate_keys=True)),
}
RANDOM = dict(mask="random", mask_options={"density": 0.5}, mask_stage="solve")
NAMES = [name + mask for name in METHODS for mask in ("", "-random")]
HEAD = f"""\
real edits on synthetic keys and drawn statistics; median seconds; / first: solve over that at the first
count; at start: solve of the edit that took up the synthetic keys; peer: torch.linalg.solve for all layers
{"method":<16} {"edits":>11} {"s/edit":>7} {"target":>7} {"keys":>7} {"solve":>7} {"/ first":>8} \
{"at start":>8} {"peer":>7} {"keys MB":>8} {"solver MB":>9}  process peak"""


def measure(name: str, model, tok, counts: list[int], repeats: int, device: str) -> list[dict]:
    """One method at every count; the model's weights are afterwards as they were."""
    path, _, masked = name.partition("-")
    kind, apply, changes = METHODS[path]
    hparams = kind(**settings("not used", contexts(), device=device, **changes, **(RANDOM if masked else {})))
    view, take = ModelView.of(model), requests()
    rank = view.d_ff // 8
    originals = clone_weights(view.model, down_names(view, LAYERS))
    state = prepared(view, tok, hparams, rank)
    sources = {
        layer: synthetic.KeySource(view.d_ff, seed=layer, device=str(view.device_of(layer)))
        for layer in LAYERS
    }
    directions = synthetic.energetic_directions(view.d_ff, rank, device=device)
    problem = synthetic.problem(path, directions, hparams.L2, hparams.mom2_update_weight)
    peer, peer_times = Peer(problem, synthetic.KeySource(view.d_ff, device=device), 1), []
    with torch.no_grad():
        peer.edit()  # the warm-up
    rows: list[dict] = []
    for count in sorted(counts):
        reset_peak(device)
        fill(state, sources, count - 2)
        # One edit takes up the synthetic keys; the ones after it are measured.
        records, times = [], []
        apply(model, tok, take(1), hparams, records=records)
        number = sum(state.counts) + 1
        for _ in range(repeats):
            times.append(timing.seconds(apply, model, tok, take(1), hparams, records=records))
            if not rows:
                with torch.no_grad():
                    peer_times.append(len(LAYERS) * timing.seconds(peer.edit))
        row = {
            "method": name,
            "count": count,
            "edits": [number, number + repeats - 1],
            "seconds": statistics.median(times),
            "stages": stages(records[1:]),
            "solves": [record.seconds["solve"] for record in records[1:]],
            "first_solve": records[0].seconds["solve"],
            "peer_solve": statistics.median(peer_times),
            "held_bytes": state.held_bytes,
            "process_peak": process_peak(device),
        }
        row["solve_over_first_count"] = row["stages"]["solve"] / (rows or [row])[0]["stages"]["solve"]
        rows.append(row)
        print(_line(row), flush=True)
    restore(view.model, originals)
    forget(model)
    return rows


def _line(row: dict) -> str:
    stage, held, (first, last) = row["stages"], row["held_bytes"], row["edits"]
    peak = ", ".join(f"{where} {count / 2**30:.2f} GB" for where, count in row["process_peak"].items())
    return (
        f"{row['method']:<16} {f'{first} to {last}':>11} {row['seconds']:7.2f} {stage['target']:7.2f} "
        f"{stage['keys']:7.2f} {stage['solve']:7.3f} {row['solve_over_first_count']:8.2f} "
        f"{row['first_solve']:8.2f} {row['peer_solve']:7.2f} {held['keys'] / 2**20:8.1f} "
        f"{held['solvers'] / 2**20:9.1f}  {peak}"
    )


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    parser = timing.parser(__doc__, repeats=3, threads=1)
    parser.add_argument("--methods", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 100, 1000, 5000], metavar="N")
    parser.add_argument("--shape", choices=list(SHAPES), default="80m")
    args = timing.parse(parser, argv)
    if min(args.counts) < 1 or args.repeats < 1:
        parser.error("--counts and --repeats start at 1")
    model, tok = random_llama(args.shape, device=args.device)
    print(HEAD)
    results = []
    for name in args.methods:
        results += measure(name, model, tok, args.counts, args.repeats, args.device)
    timing.save(args, results, earlier_edits="synthetic keys")
    return 0


if __name__ == "__main__":
    sys.exit(main())
