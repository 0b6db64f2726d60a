"""Ten minutes on a GPU: seconds an edit, its stages and peak memory at the size of Llama-3-8B, as JSON and
Markdown.

    benchmarks/gpu.sh                 # on a CUDA machine with torch; gpu.json and gpu.md in outputs/gpu
    python -m benchmarks.gpu --tiny   # the same program at a tiny shape on a CPU

Random bfloat16 weights of the real model's shape, layers 4 to 8, 25 steps for z* without an early stop, five
contexts and the bare prompt. NMKE (LPS, mask after the solve), AlphaEdit and MEMIT, 1, 10 and 100 edits at a
time; EasyEdit's AlphaEdit where EASYEDIT_HOME names a clone; our methods once more with the model over all
devices, where there are several. The statistics are drawn, with null-space bases as wide as they get: what an
edit costs does not depend on their values.

A cell is one method at one batch size. It gets an equal share of the time that is left, is stopped when it
takes three shares or half of that time, and is named as not reached where no time is left. Both files are
written after every cell. The target is 1 s an edit.
"""

import contextlib
import dataclasses
import gc
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from accelerate import dispatch_model, infer_auto_device_map
from accelerate.utils import get_balanced_memory

from easyedit_neuron.arch.view import ModelView
from easyedit_neuron.edits.record import EditRecord
from easyedit_neuron.edits.request import prepare
from easyedit_neuron.edits.session import forget
from easyedit_neuron.edits.write import clone_weights, down_names, restore
from easyedit_neuron.errors import NeuronEditError
from easyedit_neuron.host.loader import find_easyeditor
from easyedit_neuron.locate_then_edit.sequential_state import sequential_state
from easyedit_neuron.locate_then_edit.z_prompts import z_prompts
from easyedit_neuron.models.alphaedit.alphaedit_hparams import AlphaEditHyperParams
from easyedit_neuron.models.alphaedit.alphaedit_main import apply_alphaedit_to_model
from easyedit_neuron.models.memit.memit_hparams import MEMITHyperParams
from easyedit_neuron.models.memit.memit_main import apply_memit_to_model
from easyedit_neuron.models.nmke.nmke_hparams import NMKEHyperParams
from easyedit_neuron.models.nmke.nmke_main import apply_nmke_to_model
from easyedit_neuron.statistics.memory_use import readable
from easyedit_neuron.utils.timing import Stopwatch

from . import memory, timing
from .easyedit import Peer
from .editing import LAYERS, DrawnStatistics, contexts, requests, settings
from .models import random_llama, tokenizer

TARGET = 1.0  # seconds an edit
SHAPE, TINY = "llama3-8b", "tiny"
BATCHES = (1, 10, 100)
MOST_RUNS = 5
SHARES = 3
"""A cell is stopped after so many times its share of the time that is left."""
METHODS = {
    "NMKE": (NMKEHyperParams, apply_nmke_to_model, dict(alg_name="NMKE", attribution="lps")),
    "AlphaEdit": (AlphaEditHyperParams, apply_alphaedit_to_model, {}),
    "MEMIT": (MEMITHyperParams, apply_memit_to_model, dict(alg_name="MEMIT")),
}
"""Name -> hyperparameters, entry point, changed settings."""
PEER = "EasyEdit's AlphaEdit"
STAGES = {"z*": "target", "attribution": "mask", "keys": "keys", "solve": "solve"}
"""Column of the table -> stage of an ``EditRecord``."""
REST = "rest"
"""Writing the weights, and all that is no stage."""


class CellTimeout(BaseException):
    """The time of a cell is over. No ``Exception``, so that no method takes it for an edit that failed."""


@dataclass
class Cell:
    """One method at one batch size.

    Attributes:
        devices: over how many devices the model lies.
        status: ``measured``, or why it was not.
        seconds: an edit, of each run.
        stages: median seconds an edit of each of ``STAGES``, and the ``REST``; empty for the peer.
        peak: bytes by place, of the whole process.
    """

    method: str
    batch: int
    devices: int = 1
    status: str = "not reached: the time was over"
    seconds: list[float] = field(default_factory=list)
    stages: dict[str, float] = field(default_factory=dict)
    peak: dict[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        where = "" if self.devices == 1 else f", {self.devices} devices"
        return f"{self.method}, batch {self.batch}{where}"

    def markdown(self) -> str:
        """The row of the table."""
        if not self.seconds:
            return timing.markdown_row([self.name, self.status, *[""] * (len(STAGES) + 3)])
        spans = [self.stages.get(stage) for stage in (*STAGES.values(), REST)]
        shown = ["" if spent is None else f"{spent:.3f}" for spent in spans]
        span = f"{min(self.seconds):.3f} to {max(self.seconds):.3f}, {len(self.seconds)}"
        gpus = [count for place, count in self.peak.items() if place != "host"]
        peak = " + ".join(readable(count) for count in gpus or self.peak.values())
        status = "" if self.status == "measured" else f" ({self.status})"
        return timing.markdown_row(
            [self.name + status, f"{statistics.median(self.seconds):.3f}", *shown, span, peak]
        )


class Bench:
    """The model, its drawn statistics, and what every cell needs of them."""

    def __init__(self, args):
        self.args, self.device = args, args.device
        self.model, self.tok = random_llama(args.shape, torch.bfloat16, args.device)
        self.view = ModelView.of(self.model)
        shared = self.hyperparameters("AlphaEdit")
        self.statistics = DrawnStatistics(self.view, self.tok, shared, memory.widest_basis(self.view.d_ff))
        self.originals = clone_weights(self.model, down_names(self.view, LAYERS))
        self.peer: Peer | None = None

    def hyperparameters(self, method: str):
        """Of one of our methods."""
        kind, _, changes = METHODS[method]
        return kind(**settings("not used", contexts(), device=self.device, **changes))

    def start(self, cell: Cell) -> Callable[[list[dict], list], None]:
        """Ready the model for a cell; what makes a batch of edits and notes their records."""
        if cell.method == PEER:
            if self.peer is None:
                hparams = self.hyperparameters("AlphaEdit")
                self.peer = Peer(self.model, self.tok, hparams, contexts(), self.statistics, copied=False)
            peer = self.peer
            return lambda batch, records: peer.edit(batch)
        if cell.devices > 1:
            self.spread()
        hparams, apply = self.hyperparameters(cell.method), METHODS[cell.method][1]
        state, _ = sequential_state(ModelView.of(self.model), self.tok, hparams)
        state.statistics = self.statistics
        return lambda batch, records: apply(self.model, self.tok, batch, hparams, records=records)

    def spread(self) -> None:
        """Lay the model over all devices, as ``device_map="auto"`` does; it stays there."""
        if hasattr(self.model, "hf_device_map"):
            return
        blocks = self.model._no_split_modules
        room = get_balanced_memory(self.model, dtype=torch.bfloat16, no_split_module_classes=blocks)
        places = infer_auto_device_map(self.model, room, no_split_module_classes=blocks)
        self.model = dispatch_model(self.model, places)
        self.view = ModelView.of(self.model)
        hparams = self.hyperparameters("AlphaEdit")
        self.statistics = DrawnStatistics(self.view, self.tok, hparams, memory.widest_basis(self.view.d_ff))

    def clean(self) -> None:
        """The untouched model once more."""
        restore(self.model, self.originals)
        forget(self.model)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def measure(bench: Bench, cell: Cell, share: float) -> None:
    """Fill in a cell: runs until its share of the time is used up, at least one."""
    started, take, records = time.monotonic(), requests(), []
    edit = bench.start(cell)
    if cell.batch == 1:  # the first of a method also makes what stays
        edit(take(1), [])
    for device in _devices():
        memory.reset_peak(device)
    try:
        while len(cell.seconds) < MOST_RUNS and (not cell.seconds or time.monotonic() - started < share):
            watch = Stopwatch()  # by the clock that the stages of a record are taken with
            with watch.measure("edit"):
                edit(take(cell.batch), records)
            cell.seconds.append(watch.seconds["edit"] / cell.batch)
            cell.status = "measured"
    finally:
        cell.stages = stages_of(cell, records)
        cell.peak = {"host": memory.process_peak("cpu")["host"]}
        cell.peak |= {device: memory.process_peak(device)["gpu"] for device in _devices()}


def stages_of(cell: Cell, records: list[EditRecord]) -> dict[str, float]:
    """``Cell.stages``; ``records``: one for each run."""
    if not records or not cell.seconds:
        return {}
    spans: dict[str, list[float]] = {name: [] for name in (*STAGES.values(), REST)}
    for seconds, record in zip(cell.seconds, records):
        for name in STAGES.values():
            spans[name].append(record.seconds.get(name, 0.0) / cell.batch)
        spans[REST].append(seconds - sum(spans[name][-1] for name in STAGES.values()))
    return {name: statistics.median(values) for name, values in spans.items()}


def run_cell(bench: Bench, cell: Cell, left: float, cells: int) -> None:
    """Measure a cell, whatever happens in it; its status says so.

    ``left``: seconds for this cell and those after it, ``cells`` in all.
    """
    share = left / cells
    limit = left if cells == 1 else min(SHARES * share, left / 2)
    try:
        with deadline(limit):
            measure(bench, cell, share)
    except CellTimeout:
        cell.status = f"stopped: took longer than {limit:.0f} s"
    except torch.OutOfMemoryError as problem:
        cell.status = f"out of memory: {str(problem).split('.')[0]}"
    except Exception as problem:  # the next cell may do better
        cell.status = f"failed: {type(problem).__name__}: {' '.join(str(problem).split())[:200]}"
    bench.clean()


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raise ``CellTimeout`` in the block after so long."""

    def stop(*_):
        raise CellTimeout

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def planned(args) -> list[Cell]:
    """All cells, small batches first, and those that this machine cannot have, with the reason."""
    cells = [Cell(method, batch) for batch in args.batches for method in METHODS]
    try:
        missing = None if find_easyeditor() else "not run: EASYEDIT_HOME names no clone of EasyEdit"
    except NeuronEditError as problem:
        missing = f"not run: {problem}"
    peers = [Cell(PEER, batch) for batch in args.batches]
    several = [Cell(method, 1, 2) for method in METHODS]
    count = len(_devices())
    for cell in peers:
        cell.status = missing or cell.status
    for cell in several:
        cell.devices = max(count, 2)
        if count < 2:
            cell.status = f"not run: {count} CUDA device{'' if count == 1 else 's'} here"
    ours = len(METHODS)
    # Single edits of all before larger batches; the model over several devices last.
    return [*cells[:ours], *peers[:1], *cells[ours:], *peers[1:], *several]


def refusal(args) -> str | None:
    """Why this machine cannot run it at all, or None."""
    if torch.device(args.device).type == "cuda" and not torch.cuda.is_available():
        return "there is no CUDA device here; --tiny runs the same program without one"
    tok = tokenizer()
    kl_prompt = AlphaEditHyperParams(**settings("not used", contexts())).kl_prompt
    batch = z_prompts(tok, prepare(requests()(1)), ["{}", *contexts()], kl_prompt, "cpu").targets.batch
    tokens = batch.input_ids.numel()
    needs = memory.bytes_needed(args.shape, torch.bfloat16, torch.float64, LAYERS, tokens, args.device)
    print(f"{args.shape}, bfloat16, single edits: memory on {args.device} is at most\n{memory.table(needs)}")
    needed, free = sum(needs.values()), memory.free_bytes(args.device)
    if needed > free:
        return f"at most {readable(needed)} are needed and {readable(free)} are free on {args.device}"
    return None


def page(args, cells: list[Cell], spent: float) -> str:
    """``gpu.md``."""
    devices = [torch.cuda.get_device_name(device) for device in _devices()] or ["CPU"]
    head = ["", "s an edit", *STAGES, REST, "span, runs", "peak memory"]
    command = "benchmarks/gpu.sh" + (" --tiny" if args.tiny else "")
    lines = [
        f"`{command}`: {args.shape}, bfloat16, {', '.join(devices)}, torch {torch.__version__}, {spent:.0f} s"
    ]
    lines += ["", timing.markdown_row(head), timing.markdown_row(["---"] * len(head))]
    return "\n".join([*lines, *(cell.markdown() for cell in cells)]) + "\n"


def write(args, cells: list[Cell], spent: float) -> None:
    """Both files, whole."""
    args.json = args.out / "gpu.json"
    rows = [{"name": cell.name, **dataclasses.asdict(cell)} for cell in cells]
    timing.save(args, rows, target=TARGET, spent=spent, layers=LAYERS)
    (args.out / "gpu.md").write_text(page(args, cells, spent), encoding="utf-8")


def _devices() -> list[str]:
    return (
        [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    )


def main(argv: list[str] | None = None) -> int:
    """Entry point; 2 where this machine cannot run it."""
    started = time.monotonic()
    parser = timing.parser(__doc__)
    parser.set_defaults(device="cuda:0")
    parser.add_argument("--tiny", action="store_true", help="a tiny shape on a CPU: to see that it runs")
    parser.add_argument("--seconds", type=float, default=540.0, help="for everything (default: %(default)g)")
    parser.add_argument(
        "--out", type=Path, default=Path("outputs/gpu"), metavar="DIR", help="default: %(default)s"
    )
    parser.add_argument("--batches", type=int, nargs="+", default=list(BATCHES), metavar="N")
    args = timing.parse(parser, argv)
    if min(args.batches) < 1 or args.seconds <= 0:
        parser.error("--batches and --seconds are above 0")
    args.shape = TINY if args.tiny else SHAPE
    if args.tiny:
        args.device = "cpu"
    reason = refusal(args)
    if reason:
        sys.stderr.write(f"not run: {reason}\n")
        return 2
    cells = planned(args)
    write(args, cells, time.monotonic() - started)
    bench, waiting = Bench(args), [cell for cell in cells if cell.status.startswith("not reached")]
    for position, cell in enumerate(waiting):
        left = args.seconds - (time.monotonic() - started)
        if left <= 0:
            break
        run_cell(bench, cell, left, len(waiting) - position)
        write(args, cells, time.monotonic() - started)
        result = f"{statistics.median(cell.seconds):.3f} s an edit" if cell.seconds else ""
        print(f"{cell.name:<34} {' '.join(filter(None, (result, cell.status)))}", flush=True)
    write(args, cells, time.monotonic() - started)
    print(
        f"\n{page(args, cells, time.monotonic() - started)}\n{args.out / 'gpu.md'}\n{args.out / 'gpu.json'}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
