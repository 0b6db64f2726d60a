"""KNE: score the rows of the target modules, choose the ensemble, train it, add it to the weights."""

from __future__ import annotations

from ...arch import ModelView
from ...edits.apply_vectors import Trained, apply_vectors
from ...edits.request import EditRequest
from ...utils.timing import Stopwatch
from .attribute import mean_attributions
from .ensemble import choose
from .shared import answers, attribution_options, shared_scores, sites_of
from .train_ensemble import train, unit_deltas


def apply_kne_to_model(
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
    """Edits ``model`` in place by KNE.

    Args:
        model, tok: causal language model of transformers and its tokenizer (never changed).
        requests: EasyEdit's request dictionaries (``prompt``, ``subject``, ``target_new`` ...), one batch,
            trained as one.
        hparams: ``KNEHyperParams``.
        copy: edit a deep copy.
        return_orig_weights: return the weights as they were, for EasyEdit to put back.
        keep_original_weight: accepted for EasyEdit, not used.
        records: list to which the ``EditRecord`` is appended.
        **kwargs: whatever else a host passes on (EasyEdit: ``train_ds=None``), ignored.

    Returns:
        (model, {parameter name: original tensor}).

    Raises:
        NeuronEditError: bad hyperparameters or requests, or (``EditError``) training that diverged or got
            nowhere; the model is then as it was.
    """
    return apply_vectors(
        "KNE", model, tok, requests, hparams, execute_kne, copy, return_orig_weights, records
    )


def execute_kne(view: ModelView, tok, requests: list[EditRequest], hparams) -> Trained:
    """The change that KNE makes of one batch of requests; the model is afterwards as it was."""
    watch = Stopwatch()
    sites = sites_of(view, hparams)
    if hparams.localize == "shared":
        shared = shared_scores(view, tok, hparams)
        scores, located = shared.scores, {"requests": shared.requests, "model": shared.model}
    else:
        scores = mean_attributions(
            view, answers(view, tok, requests, hparams), sites, **attribution_options(hparams)
        )
        located = {"requests": len(requests)}
    ensemble = choose(scores, sites, hparams.neuron_axis, view.model, hparams.share_of_parameters, hparams.p)
    watch.lap("locate")
    fit = train(view, tok, requests, ensemble.members, hparams)
    units = unit_deltas(view, ensemble.members, fit.vectors, hparams.neuron_axis)
    watch.lap("train")
    info = {
        **ensemble.to_info(),
        "localized_on": located,
        "losses": fit.losses,
        "steps": len(fit.losses["loss"]) - 1,
        "stop": fit.stop,
    }
    return Trained(units, [fit.losses["loss"]], fit.probability, watch.seconds, info)
