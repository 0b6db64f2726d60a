"""FiNE: locate the neurons that contribute most to the object, train a vector for each, add it to W_down."""

import torch

from ...arch.view import ModelView
from ...edits.edit import Edit
from ...edits.record import UnitDelta
from ...edits.request import EditRequest
from ...utils.memory import batch_results
from .locate import Neurons, locate
from .rows import rows_of
from .train_vectors import TrainedVectors, train

Result = tuple[Neurons, TrainedVectors]


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
    """Edit ``model`` in place by FiNE.

    Args:
        model, tok: causal language model of transformers and its tokenizer (never changed).
        requests: EasyEdit's request dictionaries (``prompt``, ``subject``, ``target_new`` ...), one batch:
            all are located and trained on the same weights, and their vectors are summed.
        hparams: ``FiNEHyperParams``.
        copy: edit a deep copy.
        return_orig_weights: return the weights as they were, for EasyEdit to put back.
        keep_original_weight: accepted for EasyEdit, not used. (The release returns weights only with it, and
            only those of the last request's layers.)
        records: list to which the ``EditRecord`` is appended.
        **kwargs: accepted for EasyEdit (``train_ds=None``), not used.

    Returns:
        (model, {parameter name: original tensor}).

    Raises:
        NeuronEditError: bad hyperparameters or requests, or (``EditError``) training that diverged or did
            not lower the loss; the model is then as it was.
    """
    edit = Edit.begin("FiNE", model, tok, requests, hparams, copy)

    def locate_and_train(batch: list[EditRequest]) -> list[Result]:
        neurons = locate(edit.view, edit.tok, batch, hparams)
        edit.watch.lap("locate")
        vectors = train(
            edit.view, rows_of(edit.tok, batch, hparams, edit.view.model.config.model_type), neurons, hparams
        )
        edit.watch.lap("train")
        return list(zip(neurons, vectors))

    with edit.computing():
        parts = batch_results(edit.requests, hparams.train_batch_size, locate_and_train, "FiNE")
    results = [result for part in parts for result in part]
    edit.units = sum_of_vectors(edit.view, results)
    report(edit, results)
    return edit.commit(records, return_orig_weights)


def sum_of_vectors(view: ModelView, results: list[Result]) -> dict[str, UnitDelta]:
    """Parameter name -> the vectors of all requests, summed per neuron; compute dtype."""
    layers = torch.cat([neurons.layers for neurons, _ in results])
    units = torch.cat([neurons.units for neurons, _ in results])
    vectors = torch.cat([trained.vectors.to("cpu", view.compute_dtype) for _, trained in results])
    deltas = {}
    for layer in layers.unique().tolist():
        in_layer = layers == layer
        numbers, place = units[in_layer].unique(return_inverse=True)
        total = vectors.new_zeros(len(numbers), view.d_model).index_add(0, place, vectors[in_layer])
        shape, info = (view.d_model, view.d_ff), {"layer": layer}
        deltas[view.down_weight_name(layer)] = UnitDelta(numbers, total, "input", shape, info)
    return deltas


def report(edit: Edit, results: list[Result]) -> None:
    """Fill in the record's info; a request's ``neurons`` are [layer, number, token id, contribution]."""
    for neurons, trained in results:
        edit.losses.append(trained.losses)
        edit.probability.append(trained.probability)
        scores = [None if score != score else score for score in neurons.scores.tolist()]
        columns = neurons.layers.tolist(), neurons.units.tolist(), neurons.token_ids.tolist(), scores
        edit.info.setdefault("requests", []).append(
            {
                "neurons": [list(neuron) for neuron in zip(*columns)],
                "steps": trained.steps,
                "stop": trained.stop,
                "first": trained.first,
                "last": trained.last,
            }
        )
    per_layer = {str(delta.info["layer"]): len(delta.units) for delta in edit.units.values()}
    edit.info["neurons_per_layer"] = per_layer
    edit.info["modified_parameters"] = sum(per_layer.values()) * edit.view.d_model
