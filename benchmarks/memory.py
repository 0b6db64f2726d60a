"""Memory: what an edit at a given size needs, what a device has left, and what a program has taken."""

import json
import os
import resource
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from easyedit_neuron.statistics.memory_use import decomposition_bytes, matrix_bytes, readable

from .models import SHAPES, random_llama

OVERHEAD = 3 << 30
"""On a GPU: CUDA's context, workspaces of its libraries, and the blocks of neurons in the attribution."""


def widest_basis(d_ff: int) -> int:
    """Most columns that the thinner basis of a null space and its complement can have."""
    return (d_ff - 1) // 2


def bytes_needed(
    shape: str, dtype: torch.dtype, solve_dtype: torch.dtype, layers: list[int], tokens: int, device: str
) -> dict[str, int]:
    """Estimate from above what AlphaEdit or NMKE with ``mask_stage: post`` need, by consumer; nothing is
    loaded.

    Args:
        shape: name in ``SHAPES``.
        dtype, solve_dtype: of the weights, and of what the solvers keep.
        layers: edited layers.
        tokens: of all rows of a batch: contexts and KL prompts of all requests, with padding.
        device: cuda or cpu.
    """
    sizes = SHAPES[shape]
    d_model, d_ff, blocks = (
        sizes[name] for name in ("hidden_size", "intermediate_size", "num_hidden_layers")
    )
    model, _ = random_llama(shape, device="meta")
    basis = d_ff * widest_basis(d_ff)
    return {
        "weights": sum(p.numel() for p in model.parameters()) * dtype.itemsize,
        "covariances": len(layers) * matrix_bytes(d_ff, torch.float32),
        "eigen-decomposition": decomposition_bytes(d_ff, torch.float32),
        "null space bases": len(layers) * basis * torch.float32.itemsize,
        "solvers": len(layers) * basis * solve_dtype.itemsize,
        "copies of weights": d_model * d_ff * (len(layers) * dtype.itemsize + 3 * torch.float32.itemsize),
        # What forward and backward pass keep of a token: FFN and residual stream of every block, and its
        # logits.
        "activations": tokens
        * (blocks * (4 * d_ff + 12 * d_model) * dtype.itemsize + 20 * sizes["vocab_size"]),
        "overhead": OVERHEAD if torch.device(device).type == "cuda" else 0,
    }


def table(needs: dict[str, int]) -> str:
    """One line a consumer, and the sum."""
    rows = {**needs, "together": sum(needs.values())}
    return "\n".join(f"{name:<22} {readable(count):>12}" for name, count in rows.items() if count)


def free_bytes(device: str) -> int:
    """Memory that a program may still take on a device."""
    if torch.device(device).type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    meminfo = Path("/proc/meminfo")
    for line in meminfo.read_text().splitlines() if meminfo.exists() else ():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def reset_peak(device: str) -> None:
    """Start counting the peak of a GPU anew."""
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def process_peak(device: str) -> dict[str, int]:
    """Most memory that this process has had on the host, and on the GPU since the last ``reset_peak``."""
    unit = 1 if sys.platform == "darwin" else 1024
    peak = {"host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    if torch.device(device).type == "cuda":
        peak["gpu"] = torch.cuda.max_memory_allocated(device)
    return peak


def peak_bytes(run: Callable[[], object], device: str = "cpu") -> int:
    """Most memory that torch holds on a device while ``run`` runs, above what it holds at the start."""
    if torch.device(device).type == "cuda":
        reset_peak(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(file))
        trace = json.loads(file.read_text())["traceEvents"]
    events = [
        event for event in trace if event.get("name") == "[memory]" and event["args"]["Device Type"] == 0
    ]
    events = [event["args"] for event in sorted(events, key=lambda event: event["ts"])]
    before = events[0]["Total Allocated"] - events[0]["Bytes"]
    return max(event["Total Allocated"] for event in events) - before
