"""FiNE: locate the neurons that say the object, train a vector for each, add it to the neuron's column of the
down projection."""

import torch

from ...arch.view import ModelView
from ...edits.apply_vectors import Trained, apply_vectors
from ...edits.record import UnitDelta
from ...edits.request import EditRequest
from ...utils.memory import in_batches
from ...utils.timing import Stopwatch
from .fine_hparams import FiNEHyperParams
from .locate import Neurons, locate
from .rows import rows_of
from .train_vectors import Found, train


def apply_fine_to_model(
    model,
    tok,
    requests,
    hparams,
    copy=False,
    return_orig_weights=False,
    keep_original_weight=False,
    records=None,
    **kwargs,
):
    """Edits ``model`` in place by FiNE.

    Args:
        model, tok: causal language model of transformers and its tokenizer (never changed).
        requests: EasyEdit's request dictionaries (``prompt``, ``subject``, ``target_new`` ...), one batch:
            all are located and trained on the same weights, and what they found is added together.
        hparams: ``FiNEHyperParams``.
        copy: edit a deep copy.
        return_orig_weights: return the weights as they were, for EasyEdit to put back.
        keep_original_weight: accepted for EasyEdit, not used. (The release returns weights only with it, and
            those of the last request's layers alone.)
        records: list to which the ``EditRecord`` is appended.
        **kwargs: whatever else a host passes on (EasyEdit: ``train_ds=None``), ignored.

    Returns:
        (model, {parameter name: original tensor}).

    Raises:
        NeuronEditError: bad hyperparameters or requests, or (``EditError``) an edit that diverged or got
            nowhere; the model is then as it was.
    """
    return apply_vectors(
        "FiNE", model, tok, requests, hparams, execute_fine, copy, return_orig_weights, records
    )


def execute_fine(view: ModelView, tok, requests: list[EditRequest], hparams: FiNEHyperParams) -> Trained:
    """Neurons and vectors of a batch, and what they add to the weights; the model is afterwards as it was."""
    watch = Stopwatch()

    def edit(some: list[EditRequest]) -> list[tuple[Neurons, Found]]:
        neurons = locate(view, tok, some, hparams)
        watch.lap("locate")
        found = train(view, rows_of(tok, some, hparams, view.model.config.model_type), neurons, hparams)
        watch.lap("train")
        return list(zip(neurons, found))

    done = in_batches(requests, hparams.train_batch_size, edit, "FiNE")
    units = _units(view, done)
    per_layer = {str(delta.info["layer"]): len(delta.units) for delta in units.values()}
    info = {
        "requests": [_about(neurons, found) for neurons, found in done],
        "neurons_per_layer": per_layer,
        "modified_parameters": sum(per_layer.values()) * view.d_model,
    }
    return Trained(
        units,
        [found.losses for _, found in done],
        [found.probability for _, found in done],
        watch.seconds,
        info,
    )


def _units(view: ModelView, done: list[tuple[Neurons, Found]]) -> dict[str, UnitDelta]:
    """Vectors of all requests, those of one neuron added up; in float32 (float64 for a float64 model)."""
    layers, units = (
        torch.cat([getattr(neurons, name) for neurons, _ in done]) for name in ("layers", "units")
    )
    vectors = torch.cat([found.vectors.to("cpu", view.compute_dtype) for _, found in done])
    deltas = {}
    for layer in layers.unique().tolist():
        mine = layers == layer
        numbers, which = units[mine].unique(return_inverse=True)
        added = vectors.new_zeros(len(numbers), view.d_model).index_add(0, which, vectors[mine])
        deltas[view.down_weight_name(layer)] = UnitDelta(
            numbers, added, "input", (view.d_model, view.d_ff), {"layer": layer}
        )
    return deltas


def _about(neurons: Neurons, found: Found) -> dict:
    """One request in the record: ``neurons`` as [layer, number, token id, contribution], in the order of
    their choice."""
    scores = [None if score != score else score for score in neurons.scores.tolist()]
    chosen = zip(neurons.layers.tolist(), neurons.units.tolist(), neurons.token_ids.tolist(), scores)
    return {
        "neurons": [list(entry) for entry in chosen],
        "steps": found.steps,
        "stop": found.stop,
        "first": found.first,
        "last": found.last,
    }
