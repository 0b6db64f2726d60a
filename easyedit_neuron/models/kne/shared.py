"""``localize: shared``: one ensemble for all edits, by mean scores of a localisation set on the unedited
model (paper, 4.4)."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ... import data
from ...arch import ModelView, Projection, projection
from ...arch.view import eval_mode
from ...attribution.targets import TargetTokens, target_tokens
from ...edits.request import EditRequest, prepare
from ...edits.session import ModelSession
from ...errors import HparamsError, RequestError
from ...statistics import matrix_files as files
from ...utils.fingerprint import key_fingerprint, model_fingerprint, tensors_fingerprint
from .attribute import mean_attributions

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class SharedScores:
    """Mean scores of a localisation set.

    Attributes:
        scores: ``{site.key: [rows or columns]}``.
        requests: how many requests they are the mean of.
        model: fingerprint of the weights that they were taken from.
    """

    scores: dict[str, Tensor]
    requests: int
    model: str


def localize_shared(model, tok, requests: list[dict], hparams) -> SharedScores:
    """Scores the first ``localization_set_size`` requests on the model as it is now, and keeps the means with
    the model.

    Later edits of this model with ``localize: shared`` (and the same settings) use them, however its weights
    have changed since, until ``edits.session.forget(model)`` or another call; deep copies of the model take
    them along. They are also cached below ``stats_dir``, under a key of weights, tokens, modules and
    settings, so that calling this again on the unedited model (in a process that goes on with an earlier run)
    costs a fingerprint.

    Args:
        model, tok: the model before its first edit, and its tokenizer.
        requests: EasyEdit's request dictionaries; fewer than ``localization_set_size`` are all taken, and a
            warning says so.
        hparams: ``KNEHyperParams``.

    Raises:
        NeuronEditError: bad requests, modules that the model does not have, a cache file that is damaged or
            foreign.
    """
    view = ModelView.of(model, **hparams.module_overrides())
    used = prepare(requests[: hparams.localization_set_size])
    if len(used) < hparams.localization_set_size:
        LOG.warning(
            "the ensemble is shared among %d requests, localization_set_size asks for %d",
            len(used),
            hparams.localization_set_size,
        )
    with eval_mode(model):
        targets, sites = answers(view, tok, used, hparams), sites_of(view, hparams)
        tokens = tensors_fingerprint(
            (name, getattr(targets, name)) for name in ("owner", "position", "token_ids")
        )
        tokens += tensors_fingerprint([("ids", targets.batch.input_ids)])
        about = {
            "kind": "kne-scores",
            "model": model_fingerprint(model),
            "tokens": tokens,
            "dtype": str(view.compute_dtype),
            "setting": _setting(hparams),
            "modules": [
                [site.key, site.parameter, tensors_fingerprint([("rows", site.rows)])] for site in sites
            ],
        }
        path = Path(hparams.stats_dir).expanduser() / f"kne-scores-{key_fingerprint(about)}.safetensors"
        cached = files.read(path, about)
        if cached is None:
            LOG.info("scoring %d requests for a shared ensemble", len(used))
            scores = mean_attributions(view, targets, sites, **attribution_options(hparams))
            files.write(path, about, scores)
        else:
            scores = cached[0]
    shared = SharedScores(scores, len(used), about["model"])
    ModelSession.of(model).method_state[_key(hparams)] = shared
    return shared


def shared_scores(view: ModelView, tok, hparams) -> SharedScores:
    """The scores that this model's edits share; made now from ``localization_data`` if there are none yet.

    Raises:
        HparamsError: none were made, and no data is named.
    """
    shared = ModelSession.of(view.model).method_state.get(_key(hparams))
    if shared is not None:
        return shared
    if hparams.localization_data is None:
        raise HparamsError(
            "field 'localization_data': localize 'shared' needs edits to take scores from; name a data file or "
            "tiny-world, or call easyedit_neuron.models.kne.shared.localize_shared on the unedited model first"
        )
    return localize_shared(view.model, tok, data.load(hparams.localization_data), hparams)


def sites_of(view: ModelView, hparams) -> list[Projection]:
    """The target modules of every target layer."""
    layers = sorted(hparams.layers or range(view.n_layers))
    return [projection(view, layer, name) for layer in layers for name in hparams.target_modules]


def answers(view: ModelView, tok, requests: Sequence[EditRequest], hparams) -> TargetTokens:
    """Prompts and the answers that are attributed.

    Raises:
        RequestError: ``locate_on: ground_truth``, and a request has none.
    """
    texts = [getattr(request, hparams.locate_on) for request in requests]
    for request, text in zip(requests, texts):
        if text is None:
            raise RequestError(
                f"request {request.index}: field 'ground_truth' is missing, and locate_on is 'ground_truth'; give "
                "it, or locate on 'target_new'"
            )
    return target_tokens(tok, [request.text for request in requests], texts, view.input_device)


def attribution_options(hparams) -> dict[str, Any]:
    """Keyword arguments of ``mean_attributions``."""
    return {
        "axis": hparams.neuron_axis,
        "steps": hparams.attribution_steps,
        "rule": hparams.attribution_rule,
        "scaling": hparams.scaling,
        "probability": hparams.token_probability,
        "step_batch": hparams.step_batch,
    }


def _setting(hparams) -> dict[str, Any]:
    """What the scores depend on beside model and tokens; ``step_batch`` changes their rounding alone."""
    options = {name: value for name, value in attribution_options(hparams).items() if name != "step_batch"}
    return {
        **options,
        "locate_on": hparams.locate_on,
        "layers": sorted(hparams.layers),
        "target_modules": hparams.target_modules,
        "projections": hparams.projections,
    }


def _key(hparams) -> str:
    parts = {**_setting(hparams), "size": hparams.localization_set_size, "data": hparams.localization_data}
    return f"kne {json.dumps(parts, sort_keys=True)}"
