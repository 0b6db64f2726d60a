"""Load what a run needs, and refuse what cannot work before anything is measured."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging as transformers_logging

from .. import data, resources
from ..arch.view import ModelView
from ..errors import HparamsError
from ..hyperparameters.base import HyperParams
from ..lifelong.easyedit_method import PREFIX, ForeignMethod
from ..lifelong.measurer import evenly
from ..lifelong.method import Method
from ..registry import get_method
from .settings import Settings


def method_of(settings: Settings) -> Method:
    """The method that the settings name: of the registry, or EasyEdit's."""
    if settings.method_name.startswith(PREFIX):
        texts = [] if settings.data.text is None else data.text(settings.data.text, "train")
        method = ForeignMethod(settings.method_name.removeprefix(PREFIX), texts)
        if method.alone:
            settings.evaluation.batch_size = settings.evaluation.ability_batch_size = 1
        return method
    return Method(get_method(settings.method_name))


def load_quietly(method: Method, hparams: HyperParams) -> tuple[torch.nn.Module, Any]:
    """Model and tokenizer of the hyperparameters; a missing folder is told from a name on the hub."""
    name = hparams.model_name
    if name.startswith(("/", "./", "../", "~")):
        folder = Path(name).expanduser()
        if not folder.is_dir():
            raise HparamsError(
                f"field 'model_name': there is no folder {str(folder)!r}; model.path=... names the model"
            )
    transformers_logging.disable_progress_bar()
    try:
        model, tok = method.load_model(hparams)
    finally:
        transformers_logging.enable_progress_bar()
    return model, tok


def check_layers(model: torch.nn.Module, hparams: HyperParams) -> None:
    """The layers of our own hyperparameters exist in the model; ``HparamsError`` otherwise."""
    if type(hparams).__module__.startswith("easyeditor."):
        return
    count = ModelView.of(model).n_layers
    wanted = list(getattr(hparams, "layers", []))
    last = getattr(hparams, "v_loss_layer", None)
    for name, layers in (("layers", wanted), ("v_loss_layer", [] if last is None else [last])):
        bad = [layer for layer in layers if not 0 <= layer < count]
        if bad:
            raise HparamsError(
                f"field '{name}': layer {bad[0]} is out of range, the model has layers 0 to {count - 1}"
            )


def load_probes(settings: Settings) -> tuple[list[dict[str, str]], list[str]]:
    """Facts that are never edited, and held-out text; empty where the settings ask for none."""
    facts, texts = [], []
    if settings.data.retained is not None:
        facts = evenly(data.retained(settings.data.retained), settings.evaluation.retained)
    if settings.data.text is not None and settings.evaluation.perplexity:
        texts = evenly(data.text(settings.data.text, "heldout"), settings.evaluation.perplexity)
    return facts, texts


def with_ability(settings: Settings, hparams: HyperParams) -> tuple[Settings, dict[str, Any]]:
    """The settings with the tasks of general ability by name, and what their numbers depend on (``{}``
    without tasks).

    Where nothing is said, those of tiny-world are measured for the shipped model and its world, if lm-eval is
    installed.

    Raises:
        NeuronEditError: lm-eval or a task's documents are missing.
    """
    from ..ability import tasks

    options, wanted = settings.evaluation, settings.evaluation.ability
    if wanted is None:
        models = {resources.model_path(name) for name in resources.SHIPPED_MODELS}
        shipped = (
            resources.model_path(hparams.model_name) in models
            and settings.data.retained in resources.SHIPPED_DATA
        )
        wanted = [tasks.WORLD] if shipped and tasks.available() else []
    names = tasks.canonical(wanted) if wanted else []
    settings = dataclasses.replace(settings, evaluation=dataclasses.replace(options, ability=names))
    return settings, {"ability": tasks.identity(names, options.ability_data)} if names else {}


def load_ability(options: Any) -> Any:
    """The tasks that the settings of the evaluation name, loaded; None without any. See
    ``ability.general_ability.GeneralAbility``."""
    if not options.ability:
        return None
    from ..ability.general_ability import GeneralAbility  # lm-eval takes seconds to import

    return GeneralAbility(
        options.ability,
        options.ability_data,
        options.ability_limit,
        options.ability_batch_size,
        options.ability_run_code,
        options.ability_max_new_tokens,
    )
