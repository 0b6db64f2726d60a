"""KNE: score the rows of the target modules, choose the ensemble, train it, add it to the weights."""

from ...edits.edit import Edit
from .attribute import mean_attributions
from .ensemble import choose
from .shared import answer_tokens, shared_scores, sites_of
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
    """Edit ``model`` in place by KNE.

    Args:
        model, tok: causal language model of transformers and its tokenizer (never changed).
        requests: EasyEdit's request dictionaries (``prompt``, ``subject``, ``target_new`` ...), one batch,
            trained as one.
        hparams: ``KNEHyperParams``.
        copy: edit a deep copy.
        return_orig_weights: return the weights as they were, for EasyEdit to put back.
        keep_original_weight: accepted for EasyEdit, not used.
        records: list to which the ``EditRecord`` is appended.
        **kwargs: accepted for EasyEdit (``train_ds=None``), not used.

    Returns:
        (model, {parameter name: original tensor}).

    Raises:
        NeuronEditError: bad hyperparameters or requests, or (``EditError``) training that diverged or did
            not lower the loss; the model is then as it was.
    """
    edit = Edit.begin("KNE", model, tok, requests, hparams, copy)
    view, tok, axis = edit.view, edit.tok, hparams.neuron_axis
    with edit.computing():
        # Score every row of the target modules (Eq. 3-5), then choose the ensemble (Eq. 6 and 7).
        sites = sites_of(view, hparams)
        if hparams.localize == "shared":
            shared = shared_scores(view, tok, hparams)
            scores, localized_on = shared.scores, {"requests": shared.requests, "model": shared.model}
        else:
            targets = answer_tokens(view, tok, edit.requests, hparams)
            scores = mean_attributions(view, targets, sites, hparams)
            localized_on = {"requests": len(edit.requests)}
        ensemble = choose(scores, sites, axis, view.model, hparams.share_of_parameters, hparams.p)
        edit.watch.lap("locate")
        # Train all its rows together (Eq. 8-11).
        trained = train(view, tok, edit.requests, ensemble.members, hparams)
        edit.units = unit_deltas(view, ensemble.members, trained.vectors, axis)
        edit.watch.lap("train")
    edit.losses, edit.probability = [trained.losses["loss"]], trained.probability
    edit.info = {
        **ensemble.to_info(),
        "localized_on": localized_on,
        "losses": trained.losses,
        "steps": len(trained.losses["loss"]) - 1,
        "stop": trained.stop,
    }
    return edit.commit(records, return_orig_weights)
