"""The two steps of ``easyedit-neuron tune``: where to edit, and how."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from ..arch.view import ModelView
from ..hyperparameters.base import HyperParams
from ..locate_then_edit.context_templates import contexts_of
from ..locate_then_edit.hparams import PathHyperParams
from ..locate_then_edit.shared_targets import shared_targets
from ..studies.edit_bench import EditBenchmark
from ..studies.untouched import Untouched
from .layers import Probe, choose_layer, choose_rate, runners_up
from .search import Search, Trial, layer_candidates

PROBED, MOST_LAYERS = 8, 8
DEPTHS = (0.25, 0.5, 0.75)
"""Depths at which methods that train one layer are tried."""


@dataclass
class Start:
    """Where the search begins: hyperparameters, further windows of layers, and the rows of the first step."""

    hparams: Any
    candidates: list[dict[str, Any]] = field(default_factory=list)
    rates: list[dict[str, Any]] = field(default_factory=list)
    layers: list[dict[str, Any]] = field(default_factory=list)


def find_start(model: torch.nn.Module, tok, requests: list[dict], hparams: HyperParams) -> Start:
    """The first step: learning rate of z* and layers, from what z* can do when it is put in at each depth.

    Methods without z* that name their layers are tried at three depths; others begin as they are.
    """
    view = ModelView.of(model)
    if not isinstance(hparams, PathHyperParams):
        layers = sorted({int(share * view.n_layers) for share in DEPTHS})
        trains_a_layer = len(getattr(hparams, "layers", ())) == 1
        return Start(hparams, [{"layers": [layer]} for layer in layers] if trains_a_layer else [])
    probe = Probe.of(tok, requests[:PROBED], contexts_of(model, tok, hparams))
    rate, rates = choose_rate(view, tok, probe, hparams)
    changed = hparams.override({"v_lr": rate})
    layer, rows = choose_layer(view, tok, probe, changed, MOST_LAYERS)
    first, *candidates = layer_candidates(layer, (5, 3, 1))
    width = len(first["layers"])
    for other in runners_up(rows, layer):
        candidates += layer_candidates(other, (min(width, other + 1),))
    return Start(changed.override(first), candidates, rates, rows)


def given_start(hparams: Any) -> Start:
    """Begin with settings of the user's; the same target values are also delivered by fewer layers."""
    layers = hparams.layers if isinstance(hparams, PathHyperParams) else []
    shorter = reversed(range(1, len(layers), 2))
    return Start(hparams, [{"layers": layers[-count:]} for count in shorter])


def search_settings(
    subject: Untouched,
    requests: list[dict],
    texts: list[str],
    start: Start,
    deadline: float,
    after_trial: Callable[[list[Trial]], None] = lambda trials: None,
) -> tuple[Trial, list[Trial]]:
    """The second step: sequential edits under one setting after the other, until ``time.monotonic()`` is
    ``deadline``.

    z* of each batch is searched for once per setting of the search, on the untouched model. ``after_trial``
    is called with the trials so far. Returns the best trial and all of them; the model is as it was.
    """
    bench = EditBenchmark(subject, requests, texts)
    before = subject.perplexity(texts)
    search = Search(bench, start.hparams, before, deadline, bench.search_targets)
    search.after_trial = lambda trial: after_trial(search.trials)
    with shared_targets(subject.model):
        best = search.run(start.candidates)
    return best, search.trials
