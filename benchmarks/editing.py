"""What the programs that make real edits share: requests, settings, drawn statistics, and synthetic earlier
edits."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch

from easyedit_neuron import data
from easyedit_neuron.arch.load_model import load_model
from easyedit_neuron.arch.view import ModelView
from easyedit_neuron.edits.record import EditRecord
from easyedit_neuron.edits.write import down_names, fingerprint
from easyedit_neuron.locate_then_edit.context_templates import contexts_of
from easyedit_neuron.locate_then_edit.sequential_state import SequentialState, sequential_state
from easyedit_neuron.models.alphaedit.alphaedit_hparams import AlphaEditHyperParams
from easyedit_neuron.statistics.cache import Statistics
from easyedit_neuron.statistics.nullspace import Subspace

from . import synthetic, timing
from .models import SHAPES, random_llama

LAYERS = [4, 5, 6, 7, 8]
THRESHOLD = 1e-3


def contexts(count: int = 5) -> list[str]:
    """Context templates of eight words."""
    sentences = [text for text in data.text("tiny-world") if len(text.split()) >= 6][:count]
    openings = [" ".join(text.split()[:8]).rstrip(".") for text in sentences]
    return [opening.replace("{", "").replace("}", "") + ". {}" for opening in openings]


def settings(folder: str, templates: list[str], **changes) -> dict:
    """Hyperparameters that all of them share: 25 steps for z* without an early stop."""
    shared = dict(
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
    return {**shared, **changes}


def requests(source: str = "tiny-world") -> Callable[[int], list[dict]]:
    """``take(count)``, which returns the next requests, none of them twice."""
    keys = ("prompt", "subject", "target_new", "ground_truth")
    rest = iter([{key: request[key] for key in keys} for request in data.load(source)])
    return lambda count: list(islice(rest, count))


@dataclass(frozen=True)
class Subject:
    """What is edited.

    Attributes:
        model, tok: model and tokenizer.
        fields: hyperparameters of AlphaEdit, with the context templates.
        take: the next requests.
    """

    model: Any
    tok: Any
    fields: dict[str, Any]
    take: Callable[[int], list[dict]]

    @property
    def templates(self) -> list[str]:
        """Context templates without the bare prompt."""
        return self.fields["context_templates"]


def subject(name: str, folder: str) -> Subject:
    """A random Llama of a shape; or a model that has settings, with these and real facts.

    On random weights no search for z* ends early. On a real model it ends below a loss of 0.05, for EasyEdit
    (where that is fixed) and for us. ``folder`` is for statistics of a random model; those of a real one
    are in the user's cache.
    """
    if name in SHAPES:
        return Subject(*random_llama(name), settings(folder, contexts()), requests())
    hparams = AlphaEditHyperParams.from_hparams(f"AlphaEdit/{name}")
    model, tok, _ = load_model(hparams)
    flat = [template for group in contexts_of(model, tok, hparams) for template in group if template != "{}"]
    fields = hparams.to_dict() | {"context_templates": flat, "v_stop_loss": 0.05}
    return Subject(model, tok, fields, requests("real-world"))


def stages(records: list[EditRecord], batch: int = 1) -> dict[str, float]:
    """Median seconds per request of each stage."""
    return {
        name: statistics.median(record.seconds[name] for record in records) / batch
        for name in records[0].seconds
    }


def edit_and_restore(apply, model, tok, batch: list[dict], hparams) -> EditRecord:
    """Edit, and put the weights back."""
    records: list[EditRecord] = []
    _, weights = apply(model, tok, batch, hparams, return_orig_weights=True, records=records)
    with torch.no_grad():
        for name, weight in weights.items():
            model.get_parameter(name).copy_(weight)
    return records[0]


def compare_edits(
    name: str,
    peer: Callable[[], object],
    ours: Callable[[], EditRecord],
    repeats: int,
    batch: int = 1,
    warm_up: int = 1,
) -> tuple[dict, list[EditRecord]]:
    """Time edits of one request by the peer in turns with edits of ``batch`` requests by ours.

    Prints seconds per request and the stages of ours; returns the row for the JSON file, and the records.
    """
    records: list[EditRecord] = []
    result = timing.alternate(peer, lambda: records.append(ours()), repeats, warm_up)
    row = timing.report(name, result.per_request(batch))
    row["stages"] = stages(records[warm_up:], batch)
    print(f"    stages: {timing.milliseconds(row['stages'])}", flush=True)
    return row, records[warm_up:]


class DrawnStatistics(Statistics):
    """Random covariances and null spaces, on the devices of the layers.

    ``rank`` directions carry the energy; the null space is their complement, whatever the threshold.
    """

    def __init__(self, view: ModelView, tok, hparams, rank: int):
        super().__init__(view, tok, hparams)
        self._directions = {
            layer: synthetic.energetic_directions(view.d_ff, rank, layer, view.device_of(layer))
            for layer in self.layers
        }
        self._covariances = {layer: synthetic.covariance(basis) for layer, basis in self._directions.items()}

    def covariance(self, layer: int) -> torch.Tensor:
        return self._covariances[layer]

    def null_space(self, layer: int, threshold: float) -> Subspace:
        return synthetic.null_space_of(self._directions[layer])


def prepared(view: ModelView, tok, hparams, rank: int) -> SequentialState:
    """The state for the first edit, with drawn statistics."""
    state, _ = sequential_state(view, tok, hparams)
    state.statistics = DrawnStatistics(view, tok, hparams, rank)
    return state


def fill(state: SequentialState, sources: dict[int, synthetic.KeySource], count: int) -> None:
    """Add synthetic keys of earlier edits until there are ``count``; the weights stay as they are."""
    missing = count - sum(state.counts)
    if missing > 0:
        view = state.statistics.view
        present = fingerprint(view.model, down_names(view, state.statistics.layers))
        state.append_edit(present, {layer: source.next(missing) for layer, source in sources.items()})
