"""The log of edits: bytes and seconds per edit, and how exactly edits are replayed and taken back.

``python -m benchmarks.editlog``: on tiny-llama the methods edit the first tiny-world edits in a row, each
    edit logged; then the
log is replayed on the base model (equal bits?), and some edits are taken out of the final weights, one at a
time, and what is left is compared with the final weights less that change in float64. ``--shapes``: the time
and the bytes of one entry at the sizes of Llama-3-8B (random numbers, no model).
"""

import copy
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import torch

from easyedit_neuron import data
from easyedit_neuron.cli.settings import cache_dir
from easyedit_neuron.editlog import EditLog, replay, undo
from easyedit_neuron.editlog.summed_change import sum_changes
from easyedit_neuron.edits.record import EditRecord, LayerDelta, UnitDelta
from easyedit_neuron.host.load_model import load_model
from easyedit_neuron.registry import get_method
from easyedit_neuron.utils.fingerprint import tensors_fingerprint

from .timing import parser, seconds, write_json

METHODS = ("NMKE", "MEMIT", "PNKE", "FiNE", "KNE")
D_MODEL, D_FF, LAYERS = 4096, 14336, 5  # of Llama-3-8B; layers that the paths edit


def measure(name: str, dtype: str, edits: int, undone: int) -> dict:
    """One method on tiny-llama."""
    spec = get_method(name)
    hparams = spec.load_hparams().from_hparams(f"{name}/tiny-llama").override({"bf16": dtype == "bfloat16"})
    if hasattr(hparams, "stats_dir"):
        hparams = hparams.override({"stats_dir": str(cache_dir() / "stats")})
    model, tok, _ = load_model(hparams)
    base, apply = copy.deepcopy(model), spec.load_apply()
    folder = Path(tempfile.mkdtemp())
    log, times, appends = EditLog(folder), [], []
    for request in data.load("tiny-world", None, edits):
        records: list[EditRecord] = []
        times.append(seconds(lambda: apply(model, tok, [request], hparams, records=records)))
        appends.append(seconds(lambda: log.append(records[0])))
    again = copy.deepcopy(base)
    took = seconds(lambda: replay(log, again))
    same = all(torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters()))
    worst = 0.0
    for position in range(undone):
        number = log.ids[(position * len(log.ids)) // undone]
        worst = max(worst, _undo_error(log, model, base, number))
    size = sum(entry["bytes"] for entry in log.entries) / len(log.entries)
    shutil.rmtree(folder)
    return {
        "method": name,
        "dtype": dtype,
        "edits": edits,
        "bytes": size,
        "append": statistics.median(appends),
        "edit": statistics.median(times),
        "replay": took / edits,
        "replayed_exactly": same,
        "undo_error": worst,
    }


def _undo_error(log: EditLog, model, base, number: int) -> float:
    """Largest error of a weight after one undo, in units of the dtype's rounding of the largest weight."""
    twin, own = copy.deepcopy(model), log.copy(Path(tempfile.mkdtemp()) / "log")
    undo(twin, own, number)
    before, after = sum_changes([log[number]]), 0.0
    for name, total in before.items():
        left, right = total.factors()
        delta = left @ right.T
        value = model.get_parameter(name).detach().double()
        wanted = value - (delta.reshape(value.shape) if value.dim() == 1 else delta)
        scale = torch.finfo(model.get_parameter(name).dtype).eps * float(wanted.abs().max())
        after = max(after, float((twin.get_parameter(name).detach().double() - wanted).abs().max()) / scale)
    shutil.rmtree(own.folder.parent)
    return after


def entry(kind: str) -> dict:
    """One entry at the sizes of Llama-3-8B."""
    names = [f"model.layers.{layer}.mlp.down_proj.weight" for layer in range(4, 4 + LAYERS)]
    layers, units = {}, {}
    if kind in ("AlphaEdit", "NMKE"):
        masked = kind == "NMKE"
        layers = {
            layer: LayerDelta(
                torch.randn(D_MODEL, 1),
                torch.randn(D_FF, 1),
                torch.rand(D_FF) < 0.35 if masked else None,
                keys=torch.randn(D_FF, 1),
            )
            for layer in range(4, 4 + LAYERS)
        }
    elif kind == "FiNE":
        names = names[:4]
        units = {
            name: UnitDelta(torch.arange(8), torch.randn(8, D_MODEL), "input", (D_MODEL, D_FF))
            for name in names
        }
    else:  # KNE: 1% of 8e9 parameters, rows of the down projections of all layers
        names = [f"model.layers.{layer}.mlp.down_proj.weight" for layer in range(32)]
        rows = int(0.01 * 8.03e9 / D_FF / 32)
        units = {
            name: UnitDelta(torch.arange(rows), torch.randn(rows, D_FF), "output", (D_MODEL, D_FF))
            for name in names
        }
    weights = {
        name: {"dtype": "bfloat16", "shape": [D_MODEL, D_FF], "base": "a", "before": "a", "after": "b"}
        for name in names
    }
    request = {"prompt": "The capital of Norway is", "subject": "Norway", "target_new": "Oslo"}
    record = EditRecord(
        kind,
        {},
        [request],
        ["{}"] * 6,
        layers,
        dict(zip(layers, names)),
        [[1.0] * 25],
        [0.9],
        {},
        "",
        "",
        0,
        units=units,
        weights=weights,
    )
    folder = Path(tempfile.mkdtemp())
    log = EditLog(folder)
    before = time.process_time()
    took = seconds(lambda: log.append(record))
    busy = time.process_time() - before
    size = log.entries[0]["bytes"]
    shutil.rmtree(folder)
    return {"method": kind, "bytes": size, "append": took, "cpu": busy}


def main(arguments=None) -> None:
    options = parser(__doc__)
    options.add_argument("--edits", type=int, default=10)
    options.add_argument("--undone", type=int, default=3, help="how many edits are taken out, one at a time")
    options.add_argument("--methods", nargs="+", default=METHODS)
    options.add_argument("--shapes", action="store_true", help="the entries at the sizes of Llama-3-8B")
    given = options.parse_args(arguments)
    rows = []
    if given.shapes:
        weight = torch.randn(D_MODEL, D_FF).bfloat16()
        before = time.process_time()
        tensors_fingerprint([("w", weight)])
        print(
            f"fingerprint of one weight [{D_MODEL}, {D_FF}] in bfloat16: {time.process_time() - before:.2f} s of CPU"
        )
        for kind in ("AlphaEdit", "NMKE", "FiNE", "KNE"):
            rows.append(entry(kind))
            print(
                f"{kind:<10} {rows[-1]['bytes']:>13,} bytes  {rows[-1]['append'] * 1e3:>9.1f} ms "
                f"{rows[-1]['cpu'] * 1e3:>9.1f} ms of CPU",
                flush=True,
            )
    else:
        print(
            f"{'method':<7} {'dtype':<9} {'bytes/edit':>11} {'log ms':>8} {'edit ms':>9} {'replay ms':>10} {'exact':>6} "
            f"{'undo, eps':>10}"
        )
        for name in given.methods:
            for dtype in ("float32", "bfloat16"):
                row = measure(name, dtype, given.edits, given.undone)
                rows.append(row)
                print(
                    f"{name:<7} {dtype:<9} {row['bytes']:>11,.0f} {row['append'] * 1e3:>8.1f} {row['edit'] * 1e3:>9.0f} "
                    f"{row['replay'] * 1e3:>10.1f} {str(row['replayed_exactly']):>6} {row['undo_error']:>10.2f}",
                    flush=True,
                )
    write_json(given.json, rows, edits=given.edits, undone=given.undone)


if __name__ == "__main__":
    main()
