"""NMKE: score the neurons of the edited layers on the edit's own prompts, mask, edit through the mask."""

import json
from pathlib import Path

import torch

from ...attribution import neuron_scores
from ...errors import HparamsError, RequestError
from ...masks import get_mask
from ...paths.apply import apply_path
from ...paths.execute import RowMask
from ...tokens import encode, target_token_ids


def apply_nmke_to_model(model, tok, requests, hparams, copy=False, return_orig_weights=False,
                        keep_original_weight=False, records=None, **kwargs):
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
    mask = None if hparams.mask == "none" else nmke_row_masks
    return apply_path("NMKE", model, tok, requests, hparams, copy, return_orig_weights, mask, records)


def nmke_row_masks(view, tok, requests, hparams, contexts) -> dict[int, RowMask]:
    """Row masks of every edited layer, from the unedited model.

    B = every context template x every request, each prompt read at its last real token.

    Returns:
        layer -> RowMask [d_ff].
    """
    prompts = [(context.replace("{}", r.prompt).format(r.subject), r)
               for r in requests for group in contexts for context in group]
    function = get_mask(hparams.mask)
    if hparams.mask == "nmke":
        target = attribution_targets(tok, [r for _, r in prompts], hparams.attribution_target)
        scores = neuron_scores(view, encode(tok, [text for text, _ in prompts], view.input_device), hparams.layers,
                               kind=hparams.attribution, amplify=hparams.amplify, target=target,
                               reference_quirks=hparams.reference_quirks).scores
        options = hparams.mask_options()
    else:
        # these masks look at nothing but the number of neurons
        scores = {l: torch.zeros(1, view.d_ff, device=view.device_of(l)) for l in hparams.layers}
        options = ({"density": hparams.mask_density, "seed": hparams.seed} if hparams.mask == "random"
                   else {"indices": _indices(hparams.mask_file)})
    masks = {l: function(scores[l], layer=l, **options) for l in hparams.layers}
    return {l: RowMask(m.mask.float(), m.to_json()) for l, m in masks.items()}


def attribution_targets(tok, requests, kind: str):
    """``"predicted"``, or the first token of each request's new or old object, int64 [B]."""
    if kind == "predicted":
        return "predicted"
    objects = [r.target_new if kind == "target_new" else r.ground_truth for r in requests]
    for request, text in zip(requests, objects):
        if text is None:
            raise RequestError(f"request {request.index}: attribution_target 'ground_truth' needs field 'ground_truth'")
    return torch.tensor([target_token_ids(tok, text)[0] for text in objects])


def _indices(path: str) -> dict:
    """The file of a fixed mask; the mask function itself checks the neurons."""
    try:
        table = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise HparamsError(f"field 'mask_file': {path} cannot be read as JSON ({problem})") from problem
    if not isinstance(table, dict):
        raise HparamsError(f"field 'mask_file': {path} must be an object {{layer: [neuron, ...]}}")
    return table
