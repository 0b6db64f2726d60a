"""The log of edits: bytes and seconds per edit, and how exactly edits are replayed and undone.

    python -m benchmarks.editlog

On tiny-llama the methods edit the first tiny-world edits in a row, each edit logged. Then the log is replayed
on the base model (equal bits?), and some edits are undone one at a time: the result is compared with the
final weights less that change in float64. ``--shapes``: the time and the bytes of one entry at the sizes of
Llama-3-8B (random numbers, no model).
"""

import copy
import statistics
import tempfile
import time
from pathlib import Path

import torch

from easyedit_neuron import data
from easyedit_neuron.arch.load_model import load_model
from easyedit_neuron.editlog import EditLog, replay, undo
from easyedit_neuron.editlog.summed_change import sum_changes
from easyedit_neuron.edits.record import EditRecord, LayerDelta, UnitDelta
from easyedit_neuron.registry import get_method
from easyedit_neuron.resources import cache_dir
from easyedit_neuron.utils.fingerprint import tensors_fingerprint

from .timing import parse, parser, save, seconds

METHODS = ("NMKE", "MEMIT", "PNKE", "FiNE", "KNE")
D_MODEL, D_FF, LAYERS = 4096, 14336, range(4, 9)
"""Of Llama-3-8B; the layers are those that AlphaEdit and NMKE edit."""


def measure(name: str, dtype: str, edits: int, undone: int) -> dict:
    """One method on tiny-llama."""
    spec = get_method(name)
    hparams = spec.load_hparams().from_hparams(f"{name}/tiny-llama").override({"bf16": dtype == "bfloat16"})
    if hasattr(hparams, "stats_dir"):
        hparams = hparams.override({"stats_dir": str(cache_dir() / "stats")})
    model, tok, _ = load_model(hparams)
    base, apply = copy.deepcopy(model), spec.load_apply()
    with tempfile.TemporaryDirectory() as folder:
        log, times, appends = EditLog(Path(folder)), [], []
        for request in data.load("tiny-world", None, edits):
            records: list[EditRecord] = []
            times.append(seconds(apply, model, tok, [request], hparams, records=records))
            appends.append(seconds(log.append, records[0]))
        replayed = copy.deepcopy(base)
        replay_seconds = seconds(replay, log, replayed)
        numbers = [log.ids[position * len(log.ids) // undone] for position in range(undone)]
        return {
            "method": name,
            "dtype": dtype,
            "edits": edits,
            "bytes": statistics.mean(entry["bytes"] for entry in log.entries),
            "append": statistics.median(appends),
            "edit": statistics.median(times),
            "replay": replay_seconds / edits,
            "replayed_exactly": all(map(torch.equal, replayed.parameters(), model.parameters())),
            "undo_error": max((_undo_error(log, model, number) for number in numbers), default=0.0),
        }


def _undo_error(log: EditLog, model, number: int) -> float:
    """Largest error of a weight after one undo, in units of the dtype's rounding of the largest weight."""
    undone = copy.deepcopy(model)
    with tempfile.TemporaryDirectory() as folder:
        undo(undone, log.copy(Path(folder) / "log"), number)
    worst = 0.0
    for name, total in sum_changes([log[number]]).items():
        left, right = total.factors()
        delta = left @ right.T
        weight = model.get_parameter(name).detach()
        expected = weight.double() - (delta.reshape(weight.shape) if weight.dim() == 1 else delta)
        rounding = torch.finfo(weight.dtype).eps * float(expected.abs().max())
        error = undone.get_parameter(name).detach().double() - expected
        worst = max(worst, float(error.abs().max()) / rounding)
    return worst


def entry(method: str) -> dict:
    """One entry at the sizes of Llama-3-8B."""
    names = {layer: f"model.layers.{layer}.mlp.down_proj.weight" for layer in range(32)}
    layers, units = {}, {}
    if method in ("AlphaEdit", "NMKE"):
        names = {layer: names[layer] for layer in LAYERS}
        for layer in LAYERS:
            mask = torch.rand(D_FF) < 0.35 if method == "NMKE" else None
            left, right, keys = torch.randn(D_MODEL, 1), torch.randn(D_FF, 1), torch.randn(D_FF, 1)
            layers[layer] = LayerDelta(left, right, mask, keys=keys)
    elif method == "FiNE":
        names = {layer: names[layer] for layer in LAYERS[:4]}
        for name in names.values():
            columns = torch.arange(8), torch.randn(8, D_MODEL)
            units[name] = UnitDelta(*columns, "input", (D_MODEL, D_FF))
    else:  # KNE: 1% of 8e9 parameters, rows of the down projections of all layers
        count = int(0.01 * 8.03e9 / D_FF / 32)
        for name in names.values():
            units[name] = UnitDelta(torch.arange(count), torch.randn(count, D_FF), "output", (D_MODEL, D_FF))
    weight = {"dtype": "bfloat16", "shape": [D_MODEL, D_FF], "base": "a", "before": "a", "after": "b"}
    record = EditRecord(
        method,
        {},
        [{"prompt": "The capital of Norway is", "subject": "Norway", "target_new": "Oslo"}],
        ["{}"] * 6,
        layers,
        names if layers else {},
        [[1.0] * 25],
        [0.9],
        {},
        "",
        "",
        0,
        units=units,
        weights={name: dict(weight) for name in names.values()},
    )
    with tempfile.TemporaryDirectory() as folder:
        log, start = EditLog(Path(folder)), time.process_time()
        append_seconds = seconds(log.append, record)
        cpu = time.process_time() - start
        return {"method": method, "bytes": log.entries[0]["bytes"], "append": append_seconds, "cpu": cpu}


def measure_shapes() -> list[dict]:
    """Rows of ``--shapes``."""
    weight, start = torch.randn(D_MODEL, D_FF).bfloat16(), time.process_time()
    tensors_fingerprint([("w", weight)])
    spent = time.process_time() - start
    print(f"fingerprint of one weight [{D_MODEL}, {D_FF}] in bfloat16: {spent:.2f} s of CPU")
    rows = []
    for method in ("AlphaEdit", "NMKE", "FiNE", "KNE"):
        row = entry(method)
        rows.append(row)
        times = f"{row['append'] * 1e3:>9.1f} ms {row['cpu'] * 1e3:>9.1f} ms of CPU"
        print(f"{method:<10} {row['bytes']:>13,} bytes  {times}", flush=True)
    return rows


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    options = parser(__doc__, edits=10)
    options.add_argument("--undone", type=int, default=3, help="how many edits are undone, one at a time")
    options.add_argument("--methods", nargs="+", default=METHODS)
    options.add_argument("--shapes", action="store_true", help="the entries at the sizes of Llama-3-8B")
    args = parse(options, argv)
    if args.shapes:
        save(args, measure_shapes())
        return
    print(
        f"{'method':<7} {'dtype':<9} {'bytes/edit':>11} {'log ms':>8} {'edit ms':>9} {'replay ms':>10} "
        f"{'exact':>6} {'undo, eps':>10}"
    )
    rows = []
    for name in args.methods:
        for dtype in ("float32", "bfloat16"):
            row = measure(name, dtype, args.edits, args.undone)
            rows.append(row)
            print(
                f"{name:<7} {dtype:<9} {row['bytes']:>11,.0f} {row['append'] * 1e3:>8.1f} "
                f"{row['edit'] * 1e3:>9.0f} {row['replay'] * 1e3:>10.1f} {row['replayed_exactly']!s:>6} "
                f"{row['undo_error']:>10.2f}",
                flush=True,
            )
    save(args, rows)


if __name__ == "__main__":
    main()
