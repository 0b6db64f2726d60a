"""NMKE: score the neurons of the edited layers on the edit's own prompts, mask them, edit through the
mask."""

from ...locate_then_edit.edit import LocateThenEdit
from ...masks import make_masks
from .nmke_mask import nmke_masks


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
    """Edit ``model`` in place by NMKE.

    Args:
        model, tok: causal language model of transformers and its tokenizer (never changed).
        requests: EasyEdit's request dictionaries (``prompt``, ``subject``, ``target_new`` ...), one batch.
        hparams: ``NMKEHyperParams``.
        copy: edit a deep copy.
        return_orig_weights: return the weights as they were, for EasyEdit to put back.
        keep_original_weight: accepted for EasyEdit, not used.
        records: list to which the ``EditRecord`` is appended.
        **kwargs: accepted for EasyEdit (``train_ds=None``), not used.

    Returns:
        (model, {parameter name: original tensor}).

    Raises:
        NeuronEditError: bad hyperparameters or requests; model and state are then as they were.
    """
    own_mask = hparams.mask == "nmke" and not hparams.mask_options  # those are read by make_masks
    edit = LocateThenEdit.begin("NMKE", model, tok, requests, hparams, copy)
    with edit.computing():
        for batch in edit.batches():  # all requests together; one by one on the rome path
            targets = edit.compute_z(batch)  # target values, and the neurons on the same prompts
            context = edit.scoring_context(batch, targets)
            masks = nmke_masks(context, hparams) if own_mask else make_masks(context, hparams)
            edit.update_layers(batch, targets, masks)  # keys, residual and solve, layer by layer
    return edit.commit(records, return_orig_weights)
