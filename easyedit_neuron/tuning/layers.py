"""Where a model can be edited: what z* reaches at each depth, and whose the keys are."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import torch
from torch.nn.functional import normalize

from ..arch.view import ModelView
from ..locate_then_edit.compute_keys import compute_keys, key_prompts
from ..locate_then_edit.compute_z import compute_z
from ..studies.patching import Probe, patched_accuracy
from ..utils.progress import progress

PILOT_DEPTH = 0.25
"""Share of the depth at which the learning rate is chosen: in front of the middle on every published
model."""
RATES = (0.001, 0.002, 0.005, 0.01, 0.02)
"""Learning rates of z* that are tried, as shares of |z|."""
REACH = 0.75
"""No deeper share of the layers is looked at: keys there come too late to be read at later tokens."""
CLOSE = 0.02
"""A smaller difference of two scores is no reason to prefer the larger setting."""


def probe_z(view: ModelView, tok, probe: Probe, hparams, layer: int) -> dict[str, Any]:
    """What z* at a layer can do: it is searched for and put in at the subject's last token.

    Returns:
        A row: ``rel`` and ``gen`` (share of target tokens that are first choice), ``loss`` at the end,
        ``delta`` (|z* - z| / |z|), ``z_norm`` (|z|).
    """
    flat = [context for group in probe.contexts for context in group]
    targets = compute_z(view, tok, probe.requests, hparams, flat, layer)
    row: dict[str, Any] = {"layer": layer, "v_lr": hparams.v_lr}
    for name, prompts in (("rel", probe.rewrite), ("gen", probe.rephrase)):
        shares = patched_accuracy(view, prompts, layer, targets.z)
        row[name] = fmean(shares) if shares else None
    row["loss"] = fmean(target.losses[-1] for target in targets.targets)
    norms = [float(target.initial.norm()) for target in targets.targets]
    row["delta"] = fmean(
        float((target.value - target.initial).norm()) / norm for target, norm in zip(targets.targets, norms)
    )
    return row | {"z_norm": fmean(norms)}


def probe_keys(view: ModelView, tok, probe: Probe, layers: Sequence[int]) -> dict[int, dict[str, float]]:
    """Whose the keys are, by layer: mean cosine of a subject's keys in and behind a sentence, and of two
    subjects' keys."""
    bare, in_context = (
        compute_keys(view, key_prompts(tok, probe.requests, [[template]], view.input_device), list(layers))
        for template in ("{}", probe.contexts[-1][0])
    )
    different = torch.tensor([[a.subject != b.subject for b in probe.requests] for a in probe.requests])
    cosines = {}
    for layer in layers:
        first, second = (normalize(keys[layer].cpu(), dim=0) for keys in (bare, in_context))
        across = (first.T @ second)[different]
        own = float((first * second).sum(0).mean())
        cosines[layer] = {"same_subject": own, "other_subject": float(across.mean()) if len(across) else 0.0}
    return cosines


def choose_rate(view: ModelView, tok, probe: Probe, hparams) -> tuple[float, list[dict[str, Any]]]:
    """The learning rate of z* with the best score at the pilot layer, the smallest of those that are close.

    Returns:
        The rate, rounded to one digit, and a row for each that was tried.
    """
    layer = int(PILOT_DEPTH * view.n_layers)
    norm = probe_z(view, tok, probe, hparams.override({"v_num_grad_steps": 1}), layer)["z_norm"]
    rows = []
    with progress("step size of z*", len(RATES), "rate") as shown:
        for share in RATES:
            rate = float(f"{share * norm:.1g}")
            rows.append(probe_z(view, tok, probe, hparams.override({"v_lr": rate}), layer))
            shown.add(1)
    return _first_close(rows)["v_lr"], rows


def choose_layer(view: ModelView, tok, probe: Probe, hparams, most: int) -> tuple[int, list[dict[str, Any]]]:
    """The layer whose z* the rephrasings follow best, the lowest of those that are close.

    At most ``most`` layers are looked at, evenly spread over the first ``REACH`` of the depth.
    """
    last = max(1, int(REACH * view.n_layers)) - 1
    count = min(most, last + 1)
    layers = sorted({round(place * last / max(1, count - 1)) for place in range(count)})
    cosines, rows = probe_keys(view, tok, probe, layers), []
    with progress("layers", len(layers), "layer") as shown:
        for layer in layers:
            rows.append(probe_z(view, tok, probe, hparams, layer) | cosines[layer])
            shown.add(1)
    return _first_close(rows)["layer"], rows


def runners_up(rows: list[dict[str, Any]], layer: int, count: int = 2) -> list[int]:
    """The next best layers of ``choose_layer``'s rows, best first."""
    ranked = sorted(rows, key=lambda row: -score_of(row["rel"], row["gen"]))
    return [row["layer"] for row in ranked if row["layer"] != layer][:count]


def score_of(*shares: float | None) -> float:
    """Harmonic mean of the shares that were measured: no measure can make up for another one."""
    measured = [share for share in shares if share is not None]
    if not measured or min(measured) <= 0:
        return 0.0
    return len(measured) / sum(1 / share for share in measured)


def _first_close(rows: list[dict[str, Any]]) -> dict[str, Any]:
    scores = [score_of(row["rel"], row["gen"]) for row in rows]
    return next(row for row, score in zip(rows, scores) if score >= max(scores) - CLOSE)
