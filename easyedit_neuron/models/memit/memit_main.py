"""MEMIT: the ridge path, for every neuron or those of a mask."""

from ...locate_then_edit.edit import apply_locate_then_edit


def apply_memit_to_model(
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
    """Edit ``model`` in place; arguments and return value of EasyEdit's ``apply_*_to_model``.

    ``keep_original_weight`` and unknown keywords are accepted and not used, as EasyEdit's own methods do.
    """
    return apply_locate_then_edit("MEMIT", model, tok, requests, hparams, copy, return_orig_weights, records)
