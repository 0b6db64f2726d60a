"""ROME: rank-one updates, for every neuron or those of a mask."""

from ...locate_then_edit.edit import apply_locate_then_edit


def apply_rome_to_model(
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

    ROME has no joint solution for several requests. They are edited one after the other, each on the weights
    that the previous edit left, as with one call for each; the record holds all of them. EasyEdit's ROME
    makes the first edit and silently drops the others, so editors refuse ``batch_edit`` with ROME.

    ``keep_original_weight`` and unknown keywords are accepted and not used, as EasyEdit's own methods do.
    """
    return apply_locate_then_edit("ROME", model, tok, requests, hparams, copy, return_orig_weights, records)
