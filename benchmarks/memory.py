"""Memory of an edit on a Llama, consumer by consumer, from sizes alone: nothing is loaded to know it.

``bytes_needed`` is for the alphaedit and the memit path with ``mask_stage: post``. What stays is exact
(weights, statistics, solvers, keys, copies of weights); what a stage takes and gives back is counted from
above, and all of it is added up although no two stages happen at once.
"""

import json
import resource
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from easyedit_neuron.attribution.projection import CPU_CHUNKS, GPU_CHUNKS
from easyedit_neuron.locate_then_edit.solver.sequential import BLOCK
from easyedit_neuron.locate_then_edit.solver.woodbury import FOLD
from easyedit_neuron.locate_then_edit.z_prompts import TargetPrompts
from easyedit_neuron.statistics.memory_use import decomposition_bytes, matrix_bytes, readable

F32 = 4
RUNTIME = 2 << 30
"""CUDA's context, workspaces of cuBLAS and cuSOLVER, and what the allocator cannot use: an estimate."""


@dataclass(frozen=True)
class Rows:
    """Sizes of the token rows on which z* is searched for.

    Attributes:
        requests, contexts: of a batch; contexts count the bare prompt.
        tokens: of the longest row; it is what every row is padded to.
        past, suffix: most tokens before, and from, the first position that the search changes or reads.
        answers: target tokens of all rows.
    """

    requests: int
    contexts: int
    tokens: int
    past: int
    suffix: int
    answers: int

    @classmethod
    def of(cls, prompts: TargetPrompts) -> "Rows":
        """Of tokenised requests."""
        lengths, start = prompts.batch.lengths, prompts.start
        return cls(
            *prompts.prompt_end.shape,
            tokens=int(lengths.max()),
            past=int(start.max()),
            suffix=int((lengths - start).max()),
            answers=len(prompts.answer_id),
        )

    @classmethod
    def widest(cls, several: Iterable["Rows"]) -> "Rows":
        """The largest of every size."""
        return cls(*map(max, zip(*map(astuple, several))))

    @property
    def count(self) -> int:
        """Rows: every context and the KL prompt of every request."""
        return self.requests * (self.contexts + 1)


def parameters(shape: Mapping) -> int:
    """Numbers in a Llama's weights, embeddings not tied."""
    d, d_ff, vocab = shape["hidden_size"], shape["intermediate_size"], shape["vocab_size"]
    attention = 2 * d * d + 2 * d * _kv_width(shape)  # q and o; k and v have fewer heads
    block = attention + 3 * d * d_ff + 2 * d  # gate, up, down; two norms
    return 2 * vocab * d + shape["num_hidden_layers"] * block + d  # embedding, unembedding; final norm


def rows_held(appends: list[int], fold: int | None = None) -> int:
    """Rows of memory in a ``KeyBuffer`` after appends of these sizes: it doubles. ``fold``: emptied whenever
    it has that many."""
    held = count = 0
    for size in appends:
        count += size
        if count > held:
            held = max(count, 2 * held, 8)
        if fold is not None and count >= fold:
            count = 0  # the memory stays
    return held


def widest_basis(d_ff: int) -> int:
    """Most columns that the basis of a null space's complement can have where it is the thinner of the
    two."""
    return (d_ff - 1) // 2


def solver_bytes(
    path: str,
    d_ff: int,
    null_dim: int,
    edits: int,
    requests: int,
    dtype: torch.dtype,
    kept: torch.dtype = torch.float32,
) -> int:
    """What one layer's ``SequentialSolver`` keeps after ``edits`` calls of ``requests`` keys each.

    Args:
        path: alphaedit or memit.
        d_ff, null_dim: size of key space and of the null space in it (alphaedit).
        edits, requests: calls, and keys of each.
        dtype: of what the solver keeps.
        kept: of the statistics.
    """
    basis = _basis(path, d_ff, null_dim)
    dim, limit = _system(path, d_ff, null_dim)
    dense, appends = False, []
    for edit in range(edits):
        earlier = edit * requests
        if not dense and earlier > limit:
            dense, appends = True, []
        elif edit:
            appends += [min(BLOCK, requests - first) for first in range(0, requests, BLOCK)]
    rows = rows_held(appends, FOLD if dense else None)
    factor = dim * dim if dense or path == "memit" else 0  # alphaedit starts from L2 I, which is a number
    probe = 3 * dim  # z, z A and z A_0
    copy = d_ff * basis if dtype != kept else 0
    return (factor + probe + copy + rows * dim) * dtype.itemsize


def _basis(path: str, d_ff: int, null_dim: int) -> int:
    """Columns of the basis that is kept: of the thinner one of null space and complement."""
    return min(null_dim, d_ff - null_dim) if path == "alphaedit" else 0


def _system(path: str, d_ff: int, null_dim: int) -> tuple[int, int]:
    """Size of the system that is solved, and the number of earlier keys beyond which its inverse is a
    matrix."""
    # a thin basis of the null space gives the coordinates; with that of its complement the work is done in
    # key space
    dim = null_dim if path == "alphaedit" and 2 * null_dim <= d_ff else d_ff
    return dim, dim // (2 if path == "alphaedit" else 8)


def bytes_needed(
    shape: Mapping,
    dtype: torch.dtype,
    layers: list[int],
    rows: Rows,
    *,
    edits: int = 1,
    path: str = "alphaedit",
    solve_dtype: torch.dtype = torch.float64,
    null_dim: int | None = None,
    scores: str | None = "lps",
    device: str = "cuda",
) -> dict[str, int]:
    """Bytes on the device by consumer, in the order in which they come; their sum is a bound on the peak.

    Args:
        shape: fields of ``LlamaConfig``.
        dtype: of the weights.
        layers: edited layers, ascending.
        rows: token rows of a batch.
        edits: calls of the method by the end, each with ``rows.requests`` requests; all keys are protected.
        path: alphaedit or memit.
        solve_dtype: what the solvers keep.
        null_dim: dimension of the null spaces; None: just over half of d_ff, which takes the most.
        scores: lps, mpc, or None where nothing is masked.
        device: cuda or cpu; the attribution's chunks depend on it.
    """
    d, d_ff, vocab, blocks = (
        shape[name] for name in ("hidden_size", "intermediate_size", "vocab_size", "num_hidden_layers")
    )
    e, kv, edited = dtype.itemsize, _kv_width(shape), len(layers)
    null_dim = d_ff - widest_basis(d_ff) if null_dim is None else null_dim
    dim, limit = _system(path, d_ff, null_dim)
    above = blocks - 1 - layers[-1]
    spots = rows.requests * rows.contexts  # places that the attribution reads
    positions = rows.answers + rows.requests  # that are unembedded in the loss

    needs = {"weights": parameters(shape) * e}
    # C of every edited layer
    needs["covariances"] = edited * matrix_bytes(d_ff, torch.float32)
    # vectors and workspace of one decomposition; drawing a covariance takes no more
    needs["eigen-decomposition"] = decomposition_bytes(d_ff, torch.float32)
    needs["null space bases"] = edited * d_ff * _basis(path, d_ff, null_dim) * F32
    needs["solvers"] = edited * solver_bytes(path, d_ff, null_dim, edits, rows.requests, solve_dtype)
    # one layer's factorisation: the system beside its factor, then the factor beside the inverse, and
    # LAPACK's copy; at the first edit (memit), or once there are many keys
    factorised = path == "memit" or (edits - 1) * rows.requests > limit
    needs["factorisation"] = 2 * matrix_bytes(dim, solve_dtype) if factorised else 0
    # keys, one row each, with the spare room of a doubling; while one layer's grows, the old rows exist
    # beside the new ones
    held = rows_held([rows.requests] * edits) * d_ff * F32
    needs["keys"] = edited * held
    needs["growing keys"] = held // 2
    # the weights as they were, while edits are tried out and while they are written
    needs["trial copies"] = edited * d * d_ff * e
    # add_delta, one layer at a time: the delta, the weight in float32 and their sum
    needs["adding a delta"] = 3 * d * d_ff * F32
    needs["clean pass"] = _clean_pass(rows, d, d_ff, kv, blocks, edited if scores else 0, e)
    needs["search"] = _search(rows, d, d_ff, kv, above, e)
    # per logit: as the unembedding gives it (e) and in float32; log-softmax, its gradient and the logits' two
    # gradients. KL, per request: before, after, p, difference and product in float32, and the gradients of
    # the last four
    needs["logits in the loss"] = positions * vocab * (2 * e + 4 * F32) + rows.requests * vocab * 9 * F32
    needs["attribution"] = _attribution(scores, spots, d, d_ff, vocab, edited, device)
    needs["runtime"] = RUNTIME if torch.device(device).type == "cuda" else 0
    return needs


def _clean_pass(rows: Rows, d: int, d_ff: int, kv: int, blocks: int, read: int, e: int) -> int:
    """Forward of whole rows, without gradients."""
    tokens = rows.count * rows.tokens
    cache = 2 * blocks * tokens * kv * e  # keys and values of all blocks
    readings = read * tokens * (d_ff + 2 * d) * e  # q, residual stream and FFN output of the edited layers
    ends = 2 * tokens * d * e  # output of z*'s block, input of the final norm
    # in one block: gate, its SiLU, up and their product; residual, two norms in float32, q, attention's
    # output
    block = tokens * (4 * d_ff * e + 4 * d * e + 2 * d * F32)
    return cache + readings + ends + block


def _search(rows: Rows, d: int, d_ff: int, kv: int, above: int, e: int) -> int:
    """Forward and backward of the blocks above z*'s on the tokens that the search can reach.

    Weights are frozen, so that a product with one keeps nothing for the backward pass.
    """
    tokens, span = rows.count * rows.suffix, rows.count * (rows.past + rows.suffix)
    past = above * 2 * rows.count * rows.past * kv * e
    # gate, its SiLU and up; both norms' input in float32 and as it was normed there; q and the attention's
    # output
    block = tokens * (3 * d_ff * e + 4 * d * F32 + 2 * d * e)
    block += 2 * span * (d + kv) * e  # keys and values: past and suffix joined, repeated for all heads
    return past + (above + 2) * block  # two more: the block that is run, forward or backward


def _attribution(
    scores: str | None, spots: int, d: int, d_ff: int, vocab: int, edited: int, device: str
) -> int:
    read = edited * spots * (d_ff + 2 * d) * F32  # the readings
    if scores is None:
        return 0
    if scores == "mpc":
        # the FFN's output matrix in float32 and its square; scores and activations of every layer
        return read + 2 * d * d_ff * F32 + 4 * edited * spots * d_ff * F32
    chunks = CPU_CHUNKS if torch.device(device).type == "cpu" else GPU_CHUNKS
    neurons, tokens = min(chunks.neurons, d_ff), min(chunks.tokens, vocab)
    # rows of the unembedding in float32; columns of the FFN, with the gain and centred; what neurons do to
    # logits, and its size
    chunk = (2 * tokens * d + 3 * neurons * d + 2 * neurons * tokens) * F32
    # the logits of a group of prompts, and the product that addcmul may make apart
    chunk += 2 * max(chunks.elements, neurons * tokens) * F32
    chunk += 4 * spots * vocab * F32  # unperturbed logits, as they are put together and summed
    # per neuron: scale, its largest logit and sum, and five of the log-probabilities, scores and activations
    # made from them
    return read + chunk + 8 * edited * spots * d_ff * F32


def process_peak(device: str) -> dict[str, int]:
    """Most memory that this process has had so far: of the host, and of the GPU since its statistics were
    last reset."""
    unit = 1 if sys.platform == "darwin" else 1024
    peak = {"host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    if torch.device(device).type == "cuda":
        peak["gpu"] = torch.cuda.max_memory_allocated(device)
    return peak


def peak_bytes(run: Callable[[], object], device: str = "cpu") -> int:
    """Most memory that torch holds on a device while ``run`` runs, above what it holds at the start."""
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        run()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trace.json"
        watched.export_chrome_trace(str(file))
        trace = json.loads(file.read_text())["traceEvents"]
    events = [
        event for event in trace if event.get("name") == "[memory]" and event["args"]["Device Type"] == 0
    ]
    events = [event["args"] for event in sorted(events, key=lambda event: event["ts"])]
    return max(event["Total Allocated"] for event in events) - (
        events[0]["Total Allocated"] - events[0]["Bytes"]
    )


def table(needs: Mapping[str, int]) -> str:
    """One line a consumer, and the sum."""
    lines = [f"{name:<22} {readable(count):>12}" for name, count in needs.items() if count]
    return "\n".join([*lines, f"{'together':<22} {readable(sum(needs.values())):>12}"])


def _kv_width(shape: Mapping) -> int:
    return shape["num_key_value_heads"] * (shape["hidden_size"] // shape["num_attention_heads"])
