"""A ninth method, in a package of its own: MEMIT among the neurons that respond most to the edited prompts.

The score of a neuron is its activation relative to its root mean square over the prompts of the batch. The
mask takes a share of the neurons with the highest scores, and MEMIT's problem is solved among them.

    pip install ./examples/salient_method
    python -m easyedit_neuron method=salient method.share=0.2 edits=10
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from easyedit_neuron import MethodSpec, register_mask, register_scores
from easyedit_neuron.hyperparameters.options import Options, doc
from easyedit_neuron.locate_then_edit.edit import LocateThenEdit
from easyedit_neuron.locate_then_edit.hparams import PathHyperParams
from easyedit_neuron.masks import NeuronMask, ScoringContext, make_masks

METHOD = MethodSpec(
    name="Salient",
    apply="salient_method:apply_salient_to_model",
    hparams="salient_method:SalientHyperParams",
    batchable=True,
    plugin=True,  # EasyEdit gets it too
)


@dataclass(kw_only=True)
class SalientOptions(Options):
    """Options of the mask; the method's own hyperparameters."""

    share: float = doc("share of the neurons that may change", 0.2, above=0, most=1)


def relative_activation(context: ScoringContext) -> dict[int, torch.Tensor]:
    """Scores ``|q_i| / rms(q_i)`` at the last token of every context, ``{layer: [B, d_ff]}``."""
    scores = {}
    for layer in context.layers:
        activations = context.readings.activations[layer].abs()
        scores[layer] = activations / activations.square().mean(0).sqrt().clamp_min(1e-6)
    return scores


def salient_mask(scores: torch.Tensor, options: SalientOptions, layer: int) -> NeuronMask:
    """The neurons with the highest score in any prompt."""
    highest = scores.max(dim=0).values
    count = max(1, round(options.share * len(highest)))
    return NeuronMask.from_indices(highest.topk(count).indices, len(highest), highest.device)


register_scores("relative_activation", relative_activation)
register_mask("salient", salient_mask, scores="relative_activation", options=SalientOptions)


@dataclass(kw_only=True)
class SalientHyperParams(SalientOptions, PathHyperParams):
    """MEMIT's hyperparameters and the share; MEMIT's files load as they are."""

    ALG_NAME: ClassVar[str] = "Salient"
    ALG_ALIASES: ClassVar[tuple[str, ...]] = ("MEMIT",)
    OWN_MASK: ClassVar[str] = "salient"
    OWN_OPTIONS: ClassVar[tuple[type[Options], ...]] = (SalientOptions,)

    path: Literal["memit"] = doc("the ridge path", "memit")
    mask: str = doc("which neurons may change", "salient")
    mask_stage: Literal["post", "solve"] = doc("where the mask acts", "solve")
    L2: float = doc("ridge added to the diagonal", 0.0)
    accumulate_keys: bool = doc("whether earlier edits are protected", False)
    layer_selection: Literal["all"] = doc("EasyEdit's field; every layer of 'layers' is edited", "all")


def apply_salient_to_model(
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
    """Edit ``model`` in place; arguments and return value of EasyEdit's ``apply_*_to_model``."""
    edit = LocateThenEdit.begin("Salient", model, tok, requests, hparams, copy)
    with edit.computing():
        for batch in edit.batches():
            targets = edit.compute_z(batch)  # z*, and the neurons' activations on the same prompts
            masks = make_masks(edit.scoring_context(batch, targets), hparams)  # scores -> mask
            edit.update_layers(batch, targets, masks)  # keys, residual and solve, layer by layer
    return edit.commit(records, return_orig_weights)
