"""Algorithm 1: P_sem of each request, from one source after the other."""

from __future__ import annotations

import logging
import weakref
from dataclasses import dataclass
from functools import cache

import torch

from ....edits.request import EditRequest
from .cache import TextCache
from .clean import normal, objection
from .settings import PromptSettings
from .sources import BackTranslations, ContextPrefixes, DatasetRephrasings, Paraphrases
from .writer import writer_of

LOG = logging.getLogger(__name__)
_WARNED: weakref.WeakSet[torch.nn.Module] = weakref.WeakSet()  # models of which a shortfall has been reported


@dataclass(frozen=True)
class SemanticPrompts:
    """P_sem of one request.

    Attributes:
        texts: at most m prompts that ask for the request's fact, none of them the prompt itself, no two
            alike.
        sources: source of each text: ``dataset``, ``paraphrase``, ``translation`` or ``context``.
        shortfall: how many are missing to m.
    """

    texts: list[str]
    sources: list[str]
    shortfall: int


def semantic_prompts(
    requests: list[EditRequest], model, tok, settings: PromptSettings
) -> list[SemanticPrompts]:
    """P_sem (PNKE, Algorithm 1): the sources in order, until there are ``settings.m`` different texts.

    A request's texts depend on nothing but the request, the settings and the weights of the writing models:
    not on the other requests, nor on the global random state, which stays as it is, like the model's flags
    and the tokenizer.

    Args:
        requests: checked requests.
        model, tok: the edited model and its tokenizer; the model writes the paraphrases unless the settings
            name another.
        settings: m, sources, models, cache.

    Returns:
        One SemanticPrompts per request. Where fewer than m were found the list is shorter; a warning says so,
        once for a model (its later edits, which mostly fall short alike, log it as information).

    Raises:
        HparamsError: a named model cannot be loaded or used.
        RequestError: a rephrasing in a request is no text.
        StateError: a cache file is damaged or foreign.
    """
    sources = _sources(model, tok, settings)
    found = [_of_request(request, sources, settings.m) for request in requests]
    short = [(request.index, one) for request, one in zip(requests, found) if one.shortfall]
    if short:
        counts = ", ".join(f"request {index} has {len(one.texts)}" for index, one in short)
        LOG.log(
            logging.INFO if model in _WARNED else logging.WARNING,
            "P_sem is short of its %d prompts: %s (sources: %s)",
            settings.m,
            counts,
            ", ".join(sources) or "none",
        )
        _WARNED.add(model)
    return found


def _sources(model, tok, settings: PromptSettings) -> dict:
    texts = TextCache(settings.cache_dir)

    @cache
    def writer(name: str, which: int | None = None):
        given = getattr(settings, name)
        return writer_of(given if which is None else given[which], name, model, tok, settings.device)

    made = {}
    for source in settings.sources:
        if source == "dataset":
            made[source] = DatasetRephrasings()
        elif source == "paraphrase":
            made[source] = Paraphrases(lambda: writer("paraphrase_model"), settings, texts)
        elif source == "translation" and settings.translation_models is not None:
            made[source] = BackTranslations(
                lambda: writer("translation_models", 0),
                lambda: writer("translation_models", 1),
                settings,
                texts,
            )
        elif source == "context":
            made[source] = ContextPrefixes(settings.contexts)
    return made


def _of_request(request: EditRequest, sources: dict, m: int) -> SemanticPrompts:
    templates = [request.text]
    if "dataset" in sources:
        rephrased = sources["dataset"].texts(request, templates)
        good = (text for text in rephrased if not objection(text, request, written=False))
        templates = list(dict.fromkeys([*templates, *good]))
    kept: dict[str, tuple[str, str]] = {}
    for name, source in sources.items():
        if len(kept) == m:
            break
        for text in source.texts(request, templates):
            problem = objection(text, request, source.written)
            if problem:
                LOG.debug("request %d: %s %r left out: it %s", request.index, name, text, problem)
                continue
            kept.setdefault(normal(text), (text, name))
            if len(kept) == m:
                break
    return SemanticPrompts(
        [text for text, _ in kept.values()], [name for _, name in kept.values()], m - len(kept)
    )
