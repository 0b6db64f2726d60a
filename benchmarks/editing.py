"""What the programs that make real edits share: requests, settings, drawn statistics, and earlier edits that
were never made."""

import statistics
from collections.abc import Callable
from itertools import islice

import torch

from easyedit_neuron import data
from easyedit_neuron.arch.view import ModelView
from easyedit_neuron.locate_then_edit.sequential_state import SequentialState
from easyedit_neuron.edits.write import down_names, fingerprint
from easyedit_neuron.locate_then_edit.sequential_state import sequential_state
from easyedit_neuron.statistics.cache import Statistics
from easyedit_neuron.statistics.nullspace import Subspace

from . import synthetic

LAYERS = [4, 5, 6, 7, 8]
THRESHOLD = 1e-3


def contexts(count: int = 5) -> list[str]:
    """Context templates of eight words."""
    sentences = [t for t in data.text("tiny-world") if len(t.split()) >= 6]
    return [
        " ".join(t.split()[:8]).rstrip(".").replace("{", "").replace("}", "") + ". {}"
        for t in sentences[:count]
    ]


def settings(folder: str, templates: list[str], **changes) -> dict:
    """Hyperparameters that all of them share: 25 steps for z* without an early stop."""
    usual = dict(
        alg_name="AlphaEdit",
        model_name="llama",
        device="cpu",
        layers=LAYERS,
        v_num_grad_steps=25,
        v_lr=0.1,
        v_stop_loss=0.0,
        v_weight_decay=0.5,
        clamp_norm_factor=0.75,
        kl_factor=0.0625,
        context_templates=templates,
        mom2_dataset="tiny-world",
        mom2_n_samples=500,
        stats_dir=folder,
        nullspace_threshold=THRESHOLD,
        L2=10.0,
    )
    return {**usual, **changes}


def requests() -> Callable[[int], list[dict]]:
    """``take(count)``, which gives the next requests, none of them twice."""
    keys = ("prompt", "subject", "target_new", "ground_truth")
    rest = iter([{key: request[key] for key in keys} for request in data.load("tiny-world")])
    return lambda count: list(islice(rest, count))


def stages(records: list, batch: int = 1) -> dict[str, float]:
    """Median seconds per request of each stage."""
    return {
        name: statistics.median(record.seconds[name] for record in records) / batch
        for name in records[0].seconds
    }


class DrawnStatistics(Statistics):
    """Covariances and null spaces that nobody has measured, on the devices of the layers.

    ``rank`` directions carry the energy; the null space is their complement, whatever the threshold.
    """

    def __init__(self, view: ModelView, tok, hparams, rank: int):
        super().__init__(view, tok, hparams)
        self._drawn: dict[int, tuple[torch.Tensor, Subspace]] = {}
        for layer in self.layers:
            directions = synthetic.energetic_directions(
                view.d_ff, rank, seed=layer, device=view.device_of(layer)
            )
            self._drawn[layer] = synthetic.covariance(directions), synthetic.null_space_of(directions)

    def covariance(self, layer: int) -> torch.Tensor:
        return self._drawn[layer][0]

    def null_space(self, layer: int, threshold: float) -> Subspace:
        return self._drawn[layer][1]


def prepared(view: ModelView, tok, hparams, rank: int) -> SequentialState:
    """The state in which the first edit will find drawn statistics."""
    state, _ = sequential_state(view, tok, hparams)
    state.statistics = DrawnStatistics(view, tok, hparams, rank)
    return state


def fill(state: SequentialState, sources: dict[int, synthetic.KeySource], count: int) -> None:
    """Adds keys of edits that were never made until there are ``count``; the weights stay as they are."""
    missing = count - sum(state.counts)
    if missing > 0:
        view = state.statistics.view
        present = fingerprint(view.model, down_names(view, state.statistics.layers))
        state.note(present, {layer: source.next(missing) for layer, source in sources.items()})


def key_sources(view: ModelView, layers: list[int]) -> dict[int, synthetic.KeySource]:
    """An endless stream of keys for each layer."""
    return {
        layer: synthetic.KeySource(view.d_ff, seed=layer, device=str(view.device_of(layer)))
        for layer in layers
    }
