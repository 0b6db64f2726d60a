"""PNKE: identify causal neurons, select the critical ones, edit these alone."""

from ...locate_then_edit.apply import apply_path
from ...masks import mask_factory
from .adam import apply_adam


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
    """Edits ``model`` in place by PNKE.

    Where the paper's equations are: P_sem (Algorithm 1) ``prompts``; activations and attributions
    ``masks.causal``; N_bg, N_trig, N_causal, N_critical (Eq. 2 to 7, Algorithms 2 to 4) ``masks.pnke``; the
    update by ridge regression (Eq. 10) ``paths.execute`` with ``mask_stage: solve``, by Adam (Eq. 8 and 9)
    ``adam``.

    Args:
        model, tok: causal language model of transformers and its tokenizer (never changed).
        requests: EasyEdit's request dictionaries (``prompt``, ``subject``, ``target_new`` ...), one batch.
            Every request selects its critical neurons; the update of the batch may use those of all.
        hparams: ``PNKEHyperParams``.
        copy: edit a deep copy.
        return_orig_weights: return the weights as they were, for EasyEdit to put back.
        keep_original_weight: accepted for EasyEdit, not used.
        records: list to which the ``EditRecord`` is appended; its ``info["identification"]`` holds P_sem and
            the costs of Table 3.
        **kwargs: whatever else a host passes on (EasyEdit: ``train_ds=None``), ignored.

    Returns:
        (model, {parameter name: original tensor}).

    Raises:
        NeuronEditError: bad hyperparameters or requests, an update that diverges; model and state are then as
            they were.
    """
    if hparams.solver == "adam":
        return apply_adam(model, tok, requests, hparams, copy, return_orig_weights, records)
    return apply_path(
        "PNKE", model, tok, requests, hparams, copy, return_orig_weights, mask_factory(hparams), records
    )
