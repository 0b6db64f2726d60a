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
    that the one before left: the same as one call for each, except for one record of all. EasyEdit's makes
    the first edit and drops the others without a word; editors therefore refuse ``batch_edit`` with ROME, as
    EasyEdit's does.

    ``keep_original_weight`` and unknown keywords are accepted and not used, as EasyEdit's own methods do.
    """
    return apply_locate_then_edit("ROME", model, tok, requests, hparams, copy, return_orig_weights, records)
