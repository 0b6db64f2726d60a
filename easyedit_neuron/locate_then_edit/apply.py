"""From EasyEdit's call to weights and back: the part that all locate-then-edit methods share."""

import dataclasses
from collections.abc import Callable

import torch

from ..arch.frozen import eval_mode
from ..arch.tokens import check_vocabulary
from ..arch.view import ModelView
from ..attribution import Readings
from ..edits.record import EditRecord
from ..edits.request import EditRequest, plain_request, prepare
from ..edits.session import SequentialState, commit, state_of, twin_of
from ..errors import HparamsError
from ..masks import NeuronMask
from ..utils.fingerprint import key_fingerprint
from .context_templates import contexts_of
from .rome_update import execute_rome
from .update import execute

_STATE_FIELDS = (
    "layers",
    "context_prompts",
    "context_length",
    "context_templates",
    "mom2_dataset",
    "mom2_n_samples",
    "mom2_dtype",
    "mom2_max_length",
    "stats_dir",
    "seed",
    "easyedit_quirks",
    "context_template_length_params",
    "mom2_adjustment",
)
"""Hyperparameters that the sequential state depends on; another value starts another state."""

MaskFactory = Callable[
    [ModelView, object, list[EditRequest], object, list[list[str]], Readings, dict], dict[int, NeuronMask]
]
"""From view, tokenizer, requests, hyperparameters, context groups, readings and the record's ``info``, which
it may add to, to a mask per layer."""


def apply_path(
    method: str,
    model,
    tok,
    requests: list[dict],
    hparams,
    copy: bool = False,
    return_orig_weights: bool = False,
    mask: MaskFactory | None = None,
    records: list | None = None,
):
    """Edits ``model`` in place along ``hparams.path``.

    Args:
        method: name for the record.
        model, tok: causal language model and tokenizer; the tokenizer is never changed.
        requests: EasyEdit's request dictionaries, solved together as one batch (one after the other on the
            rome path).
        hparams: ``PathHyperParams``.
        copy: edit a deep copy instead; it takes the sequential state with it.
        return_orig_weights: return copies of the weights as they were.
        mask: makes the row masks; None: every neuron may change.
        records: the EditRecord is appended to it.

    Returns:
        (edited model, {parameter name: original tensor}), the second empty unless asked for.

    Raises:
        NeuronEditError: anything wrong with hparams or requests, before a weight is touched. After any
            exception the model and the sequential state are exactly as they were.
    """
    prepared = prepare(requests)
    view = ModelView.of(model, **hparams.module_overrides())
    check_layers(view, hparams)
    check_vocabulary(view.model, tok, prepared)
    if copy:
        view = twin_of(view, hparams)
    with eval_mode(view.model):
        originals, record = _edit(method, view, tok, prepared, hparams, mask)
    if records is not None:
        records.append(record)
    return view.model, originals if return_orig_weights else {}


def check_layers(view: ModelView, hparams) -> None:
    """``HparamsError`` for layers that the model does not have."""
    last = view.n_layers - 1
    beyond = [layer for layer in hparams.layers if layer > last]
    if beyond:
        raise HparamsError(f"field 'layers': the model has layers 0 to {last}, got {beyond}")
    if hparams.v_loss_layer is not None and not 0 <= hparams.v_loss_layer <= last:
        raise HparamsError(
            f"field 'v_loss_layer': the model has layers 0 to {last}, got {hparams.v_loss_layer}"
        )


def state_under(view: ModelView, tok, hparams) -> tuple[SequentialState, str]:
    """The model's sequential state under these hyperparameters, made if there is none, and the fingerprint of
    its weights."""
    return state_of(view, tok, hparams, state_setting(hparams), lambda: contexts_of(view.model, tok, hparams))


def state_setting(hparams) -> str:
    """Key of the hyperparameters that the sequential state depends on."""
    return key_fingerprint({name: getattr(hparams, name) for name in _STATE_FIELDS})


def _edit(
    method: str, view: ModelView, tok, requests, hparams, mask
) -> tuple[dict[str, torch.Tensor], EditRecord]:
    layers = list(hparams.layers)
    state, before = state_under(view, tok, hparams)
    info: dict = {}
    make_masks = None
    if mask is not None:

        def make_masks(some, contexts, readings):
            return mask(view, tok, some, hparams, contexts, readings, info)

    run = execute_rome if hparams.path == "rome" else execute
    done = run(view, tok, requests, hparams, state, make_masks)
    names = {layer: view.down_weight_name(layer) for layer in layers}
    keys = done.keys_after if hparams.accumulate_keys else {}
    deltas = {layer: dataclasses.replace(delta, keys=keys.get(layer)) for layer, delta in done.deltas.items()}

    def describe(after: str) -> EditRecord:
        return EditRecord(
            method=method,
            hparams=hparams.to_dict(),
            requests=[plain_request(r) for r in requests],
            contexts=[context for group in state.contexts for context in group],
            layers=deltas,
            names=names,
            context_groups=[len(group) for group in state.contexts],
            losses=[t.losses for t in done.targets],
            probability=[t.probability for t in done.targets],
            seconds=done.seconds,
            fingerprint_before=before,
            fingerprint_after=after,
            seed=hparams.seed,
            info=info,
        )

    originals, record = commit(view, {names[layer]: deltas[layer] for layer in layers}, describe)
    state.note(record.fingerprint_after, keys, requests)
    return originals, record
