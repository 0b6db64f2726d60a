"""ROME: rank-one updates, for every neuron or those of a mask."""

from ...locate_then_edit.apply import apply_path
from ...masks import mask_factory


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
    """Edits ``model`` in place; arguments and return value of EasyEdit's ``apply_*_to_model``.

    ROME has no joint solution for several requests: they are edited one after the other, each on the weights
        that the one before
    left, which is the same as one call for each but for one record of all. EasyEdit's makes the first edit
    and drops the others without a word. Editors therefore refuse ``batch_edit`` with ROME, as EasyEdit's
    does.

    ``keep_original_weight`` and unknown keywords are accepted and not used, as EasyEdit's own methods do.
    """
    return apply_path(
        "ROME", model, tok, requests, hparams, copy, return_orig_weights, mask_factory(hparams), records
    )
