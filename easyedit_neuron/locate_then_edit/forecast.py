"""How far edits of a sequence will reach beyond their own keys, told before the first is made.

A change ``D = sum_j r_j x_j^T`` writes ``r_j`` where its key is read, and ``(x_j q) r_j`` where the key q of
another name is read. For residuals of equal length and independent directions, what a name's output changes
by, in units of one edit's own change, has the root mean square

    ``spill = sqrt(mean_q sum_j (x_j q)^2)``.

The key factors X depend on keys and statistics alone: neither z* nor a change of the weights is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..arch.chat import prompt_tokenizer
from ..arch.view import ModelView
from ..edits.request import EditRequest
from ..statistics.cache import Statistics
from ..utils.progress import progress
from .compute_keys import compute_keys, key_prompts
from .edit import problem_of
from .solver.problem import Problem
from .solver.sequential import SequentialSolver

REQUESTS_PER_FORWARD = 50
COUNTS = (1, 3, 10, 30, 100, 300, 1000, 3000)
CLASH = 0.8
"""Cosine of two keys from which on one edit can hardly be written without the other."""


@dataclass(frozen=True)
class Clash:
    """Two edits of different subjects whose keys look alike to the solve.

    Attributes:
        first, second: their positions.
        cosine: of the keys in the metric of the solve, mean over the layers.
    """

    first: int
    second: int
    cosine: float


@dataclass(frozen=True)
class Forecast:
    """What is told of a sequence of edits.

    Attributes:
        spill: number of edits -> spill on the names of the text, root mean square over the layers.
        clashes: pairs of edits, the closest first.
    """

    spill: dict[int, float]
    clashes: list[Clash]

    def edits_until(self, spill: float) -> int | None:
        """Number of edits after which there is so much spill, which grows like their square root between two
        counts; None where it is never reached."""
        earlier, before = 0, 0.0
        for count, now in sorted(self.spill.items()):
            if now >= spill:
                share = (spill**2 - before**2) / max(now**2 - before**2, 1e-30)
                return round(earlier + share * (count - earlier))
            earlier, before = count, now
        return None


def forecast(
    view: ModelView,
    tok,
    requests: Sequence[EditRequest],
    hparams,
    statistics: Statistics,
    counts: Sequence[int] | None = None,
) -> Forecast:
    """Forecast for the edits ``requests`` of the untouched model, in this order.

    Keys are those of the bare prompts, which give the spill of the keys over all contexts within 2%. A mask
    is not known before, and is left out.

    Args:
        view, tok: the untouched model and its tokenizer.
        requests: n edits.
        hparams: ``PathHyperParams``.
        statistics: of the untouched model.
        counts: numbers of edits to forecast for, at most n. Default: of ``COUNTS``, and n.
    """
    if counts is None:
        counts = [*(count for count in COUNTS if count < len(requests)), len(requests)]
    keys, names = _keys_of(view, prompt_tokenizer(tok, hparams), requests, hparams), statistics.name_keys()
    energies, cosines = dict.fromkeys(counts, 0.0), torch.zeros(len(requests), len(requests))
    for layer in hparams.layers:
        problem = problem_of(hparams, statistics, layer)
        others = names[layer].to(torch.float64)
        for count in counts:
            factor = key_factor(problem, hparams, keys[layer][:, :count]).to(others)
            energies[count] += float((others @ factor).square().sum(1).mean()) / len(hparams.layers)
        cosines += _cosines(problem, keys[layer]).to(cosines) / len(hparams.layers)
    spill = {count: energy**0.5 for count, energy in energies.items()}
    return Forecast(spill, _clashes(cosines, requests))


def key_factor(problem: Problem, hparams, keys: Tensor) -> Tensor:
    """X [d_ff, n] of the edits with these keys [d_ff, n], in order.

    With ``accumulate_keys`` that of one problem with all of them, to which a sequence that protects earlier
    keys comes close; else that of each batch, and on the rome path of each edit.
    """
    if hparams.path == "rome":
        direction = keys if not hparams.mom2_adjustment else _inverse_times(problem, keys)
        return direction / (direction * keys).sum(0)
    if hparams.accumulate_keys:
        return SequentialSolver(problem).key_factor(keys)
    solver = SequentialSolver(problem)
    return torch.cat([solver.key_factor(batch) for batch in keys.split(hparams.batch_size, 1)], 1)


def _inverse_times(problem: Problem, keys: Tensor) -> Tensor:
    """``A^-1 K`` of the problem without any key."""
    factor = SequentialSolver(problem).key_factor(keys).to(torch.float64)
    gram = factor.T @ keys.to(factor)  # (A + K K^T)^-1 K = A^-1 K (I + S)^-1, with S = gram (I - gram)^-1
    return torch.linalg.solve(torch.eye(len(gram)).to(gram) - gram, factor, left=False)


def _cosines(problem: Problem, keys: Tensor) -> Tensor:
    """[n, n], cosines of keys in the metric ``A^-1`` of the problem."""
    gram = keys.to(torch.float64).T @ _inverse_times(problem, keys)
    length = gram.diagonal().clamp_min(1e-30).sqrt()
    return gram / (length[:, None] * length)


def _clashes(cosines: Tensor, requests: Sequence[EditRequest]) -> list[Clash]:
    upper = torch.triu(cosines, 1)
    pairs = [
        Clash(first, second, float(upper[first, second]))
        for first, second in (upper > CLASH).nonzero().tolist()
        if requests[first].subject != requests[second].subject
    ]
    return sorted(pairs, key=lambda pair: -pair.cosine)


def _keys_of(view: ModelView, tok, requests: Sequence[EditRequest], hparams) -> dict[int, Tensor]:
    """Layer -> K [d_ff, n] of the bare prompts."""
    parts: dict[int, list[Tensor]] = {layer: [] for layer in hparams.layers}
    with progress("keys of the edits", len(requests), "edit") as shown:
        for start in range(0, len(requests), REQUESTS_PER_FORWARD):
            batch = list(requests[start : start + REQUESTS_PER_FORWARD])
            prompts = key_prompts(tok, batch, [["{}"]], view.input_device)
            for layer, keys in compute_keys(view, prompts, hparams.layers).items():
                parts[layer].append(keys)
            shown.add(len(batch))
    return {layer: torch.cat(keys, 1) for layer, keys in parts.items()}
