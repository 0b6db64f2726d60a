"""Load what a run needs, and refuse what cannot work before anything is measured."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers.utils import logging as transformers_logging

from .. import data, resources
from ..arch.gguf import is_gguf
from ..arch.view import ModelView
from ..errors import HparamsError
from ..evaluation.llm_judge import LLMJudge
from ..hyperparameters.base import HyperParams
from ..lifelong import EASYEDIT_PREFIX
from ..lifelong.easyedit_method import EasyEditMethod
from ..lifelong.method import Method
from ..registry import get_method
from ..utils.lists import evenly
from .settings import Settings

T = TypeVar("T")


def load_method(settings: Settings) -> Method:
    """The method that the settings name: of the registry, or EasyEdit's own."""
    if not settings.method_name.startswith(EASYEDIT_PREFIX):
        spec = get_method(settings.method_name)
        return (spec.load_runner() or Method)(spec)
    method = EasyEditMethod(settings.method_name.removeprefix(EASYEDIT_PREFIX))
    if method.one_prompt_at_a_time:
        settings.evaluation.batch_size = settings.evaluation.ability_batch_size = 1
    return method


def load_quietly(name: str, option: str, load: Callable[[], T]) -> T:
    """Call ``load`` without progress bars; ``HparamsError`` where ``name`` is a missing folder."""
    resources.require_model(name)
    path = Path(name).expanduser()
    if name.startswith(("/", "./", "../", "~")) and not (path.is_file() if is_gguf(name) else path.is_dir()):
        kind = "file" if is_gguf(name) else "folder"
        raise HparamsError(f"there is no {kind} {name!r}; {option} names the model")
    with without_progress_bars():
        return load()


@contextmanager
def without_progress_bars() -> Iterator[None]:
    """Silence the progress bars of transformers."""
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.enable_progress_bar()


def check_layers(model: torch.nn.Module, hparams: HyperParams) -> None:
    """``HparamsError`` unless the model has the layers that our own hyperparameters name."""
    if type(hparams).__module__.startswith("easyeditor."):
        return
    count = ModelView.of(model).n_layers
    named = [("layers", layer) for layer in getattr(hparams, "layers", [])]
    if getattr(hparams, "v_loss_layer", None) is not None:
        named.append(("v_loss_layer", hparams.v_loss_layer))
    for name, layer in named:
        if not 0 <= layer < count:
            problem = f"layer {layer} is out of range, the model has layers 0 to {count - 1}"
            raise HparamsError(f"field '{name}': {problem}")


def load_facts_and_texts(
    settings: Settings, requests: list[dict[str, Any]]
) -> tuple[list[dict[str, str]], list[str]]:
    """Facts that are never edited, and held-out text; empty where the settings leave them out.

    Facts of a subject that ``requests`` edit are left out.
    """
    facts, texts = [], []
    if settings.data.retained is not None:
        edited = {request["subject"].casefold() for request in requests}
        facts = data.retained(settings.data.retained)
        facts = [fact for fact in facts if fact["subject"].casefold() not in edited]
        facts = evenly(facts, settings.evaluation.retained)
    if settings.data.text is not None and settings.evaluation.perplexity:
        texts = evenly(data.text(settings.data.text, "heldout"), settings.evaluation.perplexity)
    return facts, texts


def with_ability(settings: Settings, hparams: HyperParams) -> tuple[Settings, dict[str, Any]]:
    """Replace the default of ``evaluation.ability`` by the names of the tasks, and say what their numbers
    depend on.

    Without a setting, the tasks of tiny-world are measured for the shipped model and its world, if lm-eval is
    installed. ``NeuronEditError`` where lm-eval or a task's documents are missing.
    """
    from ..ability import tasks

    options, names = settings.evaluation, settings.evaluation.ability
    if names is None:
        short_name = resources.model_short_name(resources.model_path(hparams.model_name))
        is_shipped = short_name in resources.SHIPPED_MODELS and settings.data.retained == "tiny-world"
        names = [tasks.WORLD] if is_shipped and tasks.available() else []
    names = tasks.canonical(names) if names else []
    settings = dataclasses.replace(settings, evaluation=dataclasses.replace(options, ability=names))
    return settings, {"ability": tasks.identity(names, options.ability_data)} if names else {}


def load_judge(options: Any) -> LLMJudge | None:
    """The judge that the settings of the evaluation name, asked once; None without any."""
    if options.judge is None:
        return None
    judge = LLMJudge(options.judge, options.judge_model)
    judge.check()
    return judge


def load_ability(options: Any) -> Any:
    """The tasks that the settings of the evaluation name, loaded; None without any."""
    if not options.ability:
        return None
    from ..ability.general_ability import GeneralAbility  # lm-eval takes seconds to import

    numbers = options.ability_limit, options.ability_batch_size
    answers = options.ability_run_code, options.ability_max_new_tokens
    return GeneralAbility(options.ability, options.ability_data, *numbers, *answers)
