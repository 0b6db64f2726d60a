"""PNKE: identify causal neurons, select the critical ones, edit only these."""

from ...locate_then_edit.edit import LocateThenEdit
from ...masks import make_masks
from .pnke_adam import train_critical_neurons
from .pnke_scores import pnke_masks


def apply_pnke_to_model(
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
    """Edit ``model`` in place by PNKE.

    Modules: P_sem (Algorithm 1) is in ``prompts``; activations and attributions in ``pnke_scores``; N_bg,
    N_trig, N_causal and N_critical (Eq. 2 to 7, Algorithms 2 to 4) in ``pnke_mask``. The update by ridge
    regression (Eq. 10) is in ``locate_then_edit.edit`` (``mask_stage: solve``), by Adam (Eq. 8 and 9) in
    ``pnke_adam``.

    Args:
        model, tok: causal language model of transformers and its tokenizer (never changed).
        requests: EasyEdit's request dictionaries (``prompt``, ``subject``, ``target_new`` ...), one batch.
            Critical neurons are selected for each request; the update of the batch may use all of them.
        hparams: ``PNKEHyperParams``.
        copy: edit a deep copy.
        return_orig_weights: return the weights as they were, for EasyEdit to put back.
        keep_original_weight: accepted for EasyEdit, not used.
        records: list to which the ``EditRecord`` is appended; its ``info["identification"]`` holds P_sem and
            the costs of Table 3.
        **kwargs: accepted for EasyEdit (``train_ds=None``), not used.

    Returns:
        (model, {parameter name: original tensor}).

    Raises:
        NeuronEditError: bad hyperparameters or requests, an update that diverges; model and state are then as
            they were.
    """
    own_mask = hparams.mask == "pnke" and not hparams.mask_options  # those are read by make_masks
    update = train_critical_neurons if hparams.solver == "adam" else LocateThenEdit.update_layers
    edit = LocateThenEdit.begin("PNKE", model, tok, requests, hparams, copy)
    with edit.computing():
        for batch in edit.batches():  # all requests together; one by one on the rome path
            targets = edit.compute_z(batch)  # target values, and the neurons on the same prompts
            context = edit.scoring_context(batch, targets)
            masks = pnke_masks(context, hparams) if own_mask else make_masks(context, hparams)
            update(edit, batch, targets, masks)  # Eq. 10 in closed form, or Eq. 9 by Adam
    return edit.commit(records, return_orig_weights)
