"""NMKE: score the neurons of the edited layers on the edit's own prompts, mask, edit through the mask."""

from ...locate_then_edit.apply import apply_path
from ...masks import mask_factory


def apply_nmke_to_model(
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
    """Edits ``model`` in place by NMKE.

    Args:
        model, tok: causal language model of transformers and its tokenizer (never changed).
        requests: EasyEdit's request dictionaries (``prompt``, ``subject``, ``target_new`` ...), one batch.
        hparams: ``NMKEHyperParams``.
        copy: edit a deep copy.
        return_orig_weights: return the weights as they were, for EasyEdit to put back.
        keep_original_weight: accepted for EasyEdit, not used.
        records: list to which the ``EditRecord`` is appended.
        **kwargs: whatever else a host passes on (EasyEdit: ``train_ds=None``), ignored.

    Returns:
        (model, {parameter name: original tensor}).

    Raises:
        NeuronEditError: bad hyperparameters or requests; model and state are then as they were.
    """
    return apply_path(
        "NMKE", model, tok, requests, hparams, copy, return_orig_weights, mask_factory(hparams), records
    )
