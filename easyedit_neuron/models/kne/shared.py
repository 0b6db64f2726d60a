"""``localize: shared``: one ensemble for all edits, by mean scores of localisation data on the unedited model
(paper, 4.4)."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ... import data
from ...arch import ModelView, Projection, projection
from ...arch.chat import prompt_tokenizer
from ...arch.view import eval_mode
from ...attribution.targets import TargetTokens, target_tokens
from ...edits.request import EditRequest, prepare
from ...edits.session import ModelSession
from ...errors import HparamsError, RequestError
from ...hyperparameters.base import distinguishing
from ...statistics import matrix_files
from ...utils.fingerprint import key_fingerprint, model_fingerprint, tensors_fingerprint
from .attribute import mean_attributions

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class SharedScores:
    """Mean scores of localisation data.

    Attributes:
        scores: ``{site.key: [rows or columns]}``.
        requests: number of requests that the mean is over.
        model: fingerprint of the weights on which they were computed.
    """

    scores: dict[str, Tensor]
    requests: int
    model: str


def localize_shared(model, tok, requests: list[dict], hparams) -> SharedScores:
    """Score the first ``localization_set_size`` requests on the model as it is now; its session keeps the
    means.

    Later edits of this model with ``localize: shared`` and the same settings use them, whatever its weights
    are by then. This lasts until ``edits.session.forget(model)`` or another call; deep copies of the model
    take the scores along. They are also cached below ``stats_dir``, under a key of weights, tokens, modules
    and settings. Another process that calls this on the same unedited model computes a fingerprint only.

    Args:
        model, tok: the model before its first edit, and its tokenizer.
        requests: EasyEdit's request dictionaries; with fewer than ``localization_set_size`` all are used, and
            a warning says so.
        hparams: ``KNEHyperParams``.

    Raises:
        NeuronEditError: bad requests, modules that the model does not have, a cache file that is damaged or
            belongs to something else.
    """
    view, tok = ModelView.of(model, **hparams.module_overrides()), prompt_tokenizer(tok, hparams)
    prepared = prepare(requests[: hparams.localization_set_size])
    if len(prepared) < hparams.localization_set_size:
        LOG.warning(
            "the ensemble is shared among %d requests, localization_set_size asks for %d",
            len(prepared),
            hparams.localization_set_size,
        )
    with eval_mode(model):
        targets, sites = answer_tokens(view, tok, prepared, hparams), sites_of(view, hparams)
        key = _cache_key(view, targets, sites, hparams)
        path = Path(hparams.stats_dir).expanduser() / f"kne-scores-{key_fingerprint(key)}.safetensors"
        cached = matrix_files.read(path, key)
        if cached is None:
            LOG.info("scoring %d requests for a shared ensemble", len(prepared))
            scores = mean_attributions(view, targets, sites, hparams)
            matrix_files.write(path, key, scores)
        else:
            scores = cached[0]
    shared = SharedScores(scores, len(prepared), key["model"])
    ModelSession.of(model).method_state[_state_key(hparams)] = shared
    return shared


def shared_scores(view: ModelView, tok, hparams) -> SharedScores:
    """The scores that this model's edits share; computed from ``localization_data`` if there are none yet.

    Raises:
        HparamsError: there are none, and ``localization_data`` is not set.
    """
    shared = ModelSession.of(view.model).method_state.get(_state_key(hparams))
    if shared is not None:
        return shared
    if hparams.localization_data is None:
        raise HparamsError(
            "field 'localization_data': localize 'shared' needs edits to take scores from; name a data file "
            "or tiny-world, or first call easyedit_neuron.models.kne.shared.localize_shared on the unedited "
            "model"
        )
    return localize_shared(view.model, tok, data.load(hparams.localization_data), hparams)


def sites_of(view: ModelView, hparams) -> list[Projection]:
    """The target modules of every target layer."""
    layers = sorted(hparams.layers or range(view.n_layers))
    return [projection(view, layer, name) for layer in layers for name in hparams.target_modules]


def answer_tokens(view: ModelView, tok, requests: Sequence[EditRequest], hparams) -> TargetTokens:
    """Prompts and the answers that are attributed.

    Raises:
        RequestError: ``locate_on: ground_truth``, and a request has none.
    """
    texts = [getattr(request, hparams.locate_on) for request in requests]
    for request, text in zip(requests, texts):
        if text is None:
            raise RequestError(
                f"request {request.index}: field 'ground_truth' is missing, and locate_on is 'ground_truth'; "
                "add the field, or set locate_on to 'target_new'"
            )
    return target_tokens(tok, [request.text for request in requests], texts, view.input_device)


def _settings(hparams) -> dict[str, Any]:
    """What the scores depend on besides model and tokens; ``step_batch`` changes only their rounding."""
    return {
        "axis": hparams.neuron_axis,
        "steps": hparams.attribution_steps,
        "rule": hparams.attribution_rule,
        "scaling": hparams.scaling,
        "probability": hparams.token_probability,
        "locate_on": hparams.locate_on,
        "layers": sorted(hparams.layers),
        "target_modules": hparams.target_modules,
        "projections": hparams.projections,
    }


def _cache_key(
    view: ModelView, targets: TargetTokens, sites: Sequence[Projection], hparams
) -> dict[str, Any]:
    entries = [(name, getattr(targets, name)) for name in ("owner", "position", "token_ids")]
    ids = tensors_fingerprint([("ids", targets.batch.input_ids)])
    return {
        "kind": "kne-scores",
        "model": model_fingerprint(view.model),
        "tokens": tensors_fingerprint(entries) + ids,
        "dtype": str(view.compute_dtype),
        "setting": _settings(hparams),
        "modules": [[site.key, site.parameter, tensors_fingerprint([("rows", site.rows)])] for site in sites],
    }


def _state_key(hparams) -> str:
    parts = {**_settings(hparams), "size": hparams.localization_set_size, "data": hparams.localization_data}
    parts = distinguishing({**parts, "use_chat_template": hparams.use_chat_template})
    return f"kne {json.dumps(parts, sort_keys=True)}"
