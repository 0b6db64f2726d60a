"""Algorithm 1: P_sem of each request, from four sources one after the other (PNKE, Appendix B.1).

A source yields texts for a request and its templates, which are the prompt and the data's rephrasings
(Algorithm 1, line 6). Their order is fixed; they are filtered afterwards.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ....edits.request import EditRequest
from ....edits.session import ModelSession
from ....errors import HparamsError, RequestError
from ....utils.fingerprint import key_fingerprint
from ..pnke_options import PNKEScoringOptions
from .filters import answer_line, normalised, objection, without_full_stop
from .text_cache import cache_path, read_texts, write_texts
from .writing_model import Sampling, WritingModel, named_writing_model

LOG = logging.getLogger(__name__)

REPHRASINGS = ("rephrase_prompt", "rephrase_prompts", "rephrase", "paraphrase_prompts")
"""Keys of rephrasings in requests of EasyEdit and its callers, MEND's zsRE, KnowEdit, and CounterFact."""

CANDIDATES = 10
"""Texts written from each template, before they are filtered."""
TEMPERATURE, TOP_K = 1.0, 40

CHAT = (
    'Rewrite the prompt below in other words. Keep the name "{subject}" exactly as it is, do not give the '
    "answer, and stop where the answer would follow. Reply with the rewritten prompt only.\n\n"
    "Prompt: {prompt}"
)
PLAIN = (
    "Each prompt is followed by the same prompt in other words.\n\nPrompt: The capital of Sweden is\n"
    "In other words: The city that is the capital of Sweden is\n\nPrompt: {prompt}\nIn other words:"
)
SEQ2SEQ = "paraphrase: {prompt}"


@dataclass(frozen=True)
class SemanticPrompts:
    """P_sem of one request.

    Attributes:
        texts: at most m prompts that ask for the request's fact; all differ from each other and from the
            prompt.
        sources: source of each text: ``dataset``, ``paraphrase``, ``translation`` or ``context``.
        shortfall: number of texts that are missing to m.
    """

    texts: list[str]
    sources: list[str]
    shortfall: int


def semantic_prompts(
    requests: list[EditRequest], model, tok, options: PNKEScoringOptions, contexts: list[list[str]]
) -> list[SemanticPrompts]:
    """P_sem (PNKE, Algorithm 1): the sources in order, until there are ``psem_size`` different texts.

    A request's texts depend on the request, the options, the contexts and the weights of the writing models
    only. The other requests and the global random state play no part; the model and the tokenizer are not
    changed.

    Args:
        requests: checked requests.
        model, tok: the edited model and its tokenizer; the model writes the paraphrases unless
            ``psem_paraphrase_model`` names another.
        options: m, sources, models, cache folder.
        contexts: groups of templates with one ``{}``; the bare ``"{}"`` is no prefix.

    Returns:
        One SemanticPrompts per request. A list with fewer than m texts is reported as a warning for the
        model's first edit and as information for later ones, which mostly fall short alike.

    Raises:
        HparamsError: a named model cannot be loaded or used.
        RequestError: a rephrasing in a request is no text.
        StateError: a cache file is damaged or belongs to something else.
    """
    sources = [
        name
        for name in options.psem_sources
        if name != "translation" or options.psem_translation_models is not None
    ]
    writers = {
        "paraphrase": _Paraphrases(model, tok, options),
        "translation": _BackTranslations(model, tok, options),
    }
    prompts = []
    for request in requests:
        templates = [request.text]
        if "dataset" in sources:
            usable = (text for text in rephrasings(request) if not objection(text, request, False))
            templates = list(dict.fromkeys([*templates, *usable]))
        texts = {
            "dataset": rephrasings(request),
            "context": prefixed(templates, contexts),
            **{name: writer.texts(request, templates) for name, writer in writers.items()},
        }
        prompts.append(_collect(request, {name: texts[name] for name in sources}, options.psem_size))
    _report_shortfall(requests, prompts, model, options.psem_size, sources)
    return prompts


def _collect(request: EditRequest, sources: dict[str, Iterator[str]], m: int) -> SemanticPrompts:
    """The first m usable and different texts; a source is not asked for more than are needed."""
    accepted: dict[str, tuple[str, str]] = {}
    for name, texts in sources.items():
        if len(accepted) == m:
            break
        for text in texts:
            problem = objection(text, request, written_by_model=name in ("paraphrase", "translation"))
            if problem:
                LOG.debug("request %d: %s %r left out: it %s", request.index, name, text, problem)
                continue
            accepted.setdefault(normalised(text), (text, name))
            if len(accepted) == m:
                break
    texts = [text for text, _ in accepted.values()]
    return SemanticPrompts(texts, [name for _, name in accepted.values()], m - len(texts))


def _report_shortfall(
    requests: list[EditRequest], prompts: list[SemanticPrompts], model, m: int, sources: Iterable[str]
) -> None:
    counts = [
        f"request {request.index} has {len(semantic.texts)}"
        for request, semantic in zip(requests, prompts)
        if semantic.shortfall
    ]
    if not counts:
        return
    cache = ModelSession.of(model).cache
    level = logging.INFO if "P_sem shortfall reported" in cache else logging.WARNING
    cache["P_sem shortfall reported"] = True
    names = ", ".join(sources) or "none"
    LOG.log(level, "P_sem is short of its %d prompts: %s (sources: %s)", m, ", ".join(counts), names)


def rephrasings(request: EditRequest) -> Iterator[str]:
    """Rephrasings in the request's dictionary: a text or a list of texts in each of ``REPHRASINGS``.

    Raises:
        RequestError: a field holds something else.
    """
    for field in REPHRASINGS:
        value = request.raw.get(field)
        texts = [value] if isinstance(value, str) else [] if value is None else value
        if not isinstance(texts, (list, tuple)) or not all(isinstance(text, str) for text in texts):
            raise RequestError(
                f"request {request.index}: field {field!r} must be a text or a list of texts, got {value!r}"
            )
        yield from (text.replace("{}", request.subject).strip() for text in texts)


def prefixed(templates: list[str], contexts: list[list[str]]) -> Iterator[str]:
    """Every template behind every context sentence."""
    prefixes = [context for group in contexts for context in group if context.strip() != "{}"]
    for template in templates:
        for prefix in prefixes:
            yield prefix.replace("{}", template)


class _WrittenTexts(ABC):
    """Texts that models write from an input, cached in ``psem_cache_dir``.

    Models are loaded, and fingerprints for the cache computed, when the first text is asked for.
    """

    def __init__(self, model, tok, options: PNKEScoringOptions):
        self.model, self.tok, self.options = model, tok, options

    @abstractmethod
    def texts(self, request: EditRequest, templates: list[str]) -> Iterator[str]: ...

    @abstractmethod
    def write(self, text: str) -> list[str]: ...

    @abstractmethod
    def cache_key(self, text: str) -> dict[str, Any]: ...

    @abstractmethod
    def written_by(self) -> Any: ...

    def cached_texts(self, text: str) -> list[str]:
        folder = self.options.prompt_cache
        if folder is None:
            return self.write(text)
        key = self.cache_key(text)
        path = cache_path(folder, key)
        texts = read_texts(path, key)
        if texts is None:
            texts = self.write(text)
            write_texts(path, key, texts, self.written_by())
        return texts


class _Paraphrases(_WrittenTexts):
    """Texts that a language model writes when it is asked for the template in other words."""

    @cached_property
    def writer(self) -> WritingModel:
        name = self.options.psem_paraphrase_model
        if name is None:
            return WritingModel(self.model, self.tok)
        return named_writing_model(name, "psem_paraphrase_model", self.model)

    def texts(self, request: EditRequest, templates: list[str]) -> Iterator[str]:
        writer = self.writer
        instruction = SEQ2SEQ if writer.translates else CHAT if writer.has_chat_template else PLAIN
        for template in templates:
            asked = instruction.replace("{subject}", request.subject).replace("{prompt}", template)
            for text in self.cached_texts(asked):
                yield answer_line(text, request.subject) or text

    def write(self, text: str) -> list[str]:
        writer, length = self.writer, self.options.psem_max_new_tokens
        if writer.translates:
            return writer.beams([text], CANDIDATES, length)
        # No two inputs get the same draws.
        seed = int(key_fingerprint({"seed": self.options.seed, "asked": text}), 16) % 2**63
        one_line = not writer.has_chat_template
        sampling = Sampling(CANDIDATES, length, seed, TEMPERATURE, TOP_K, one_line)
        return writer.sample(writer.chat_ids(text), sampling)

    def cache_key(self, text: str) -> dict[str, Any]:
        writer, options = self.writer, self.options
        key = {
            "kind": "paraphrase",
            "vocabulary": writer.vocabulary,
            "asked": text,
            "ids": writer.ids(text) if writer.translates else writer.chat_ids(text),
            "candidates": CANDIDATES,
            "max_new_tokens": options.psem_max_new_tokens,
        }
        if options.psem_cache_by == "strict":
            key["weights"] = writer.weights
        else:
            key["configuration"] = writer.configuration
        if not writer.translates:
            key |= {"seed": options.seed, "temperature": TEMPERATURE, "top_k": TOP_K}
        return key

    def written_by(self) -> str:
        return self.writer.weights


class _BackTranslations(_WrittenTexts):
    """The template in another language and back: the best translations there, each with its best way back."""

    @cached_property
    def writers(self) -> list[WritingModel]:
        field = "psem_translation_models"
        writers = [named_writing_model(name, field, self.model) for name in getattr(self.options, field)]
        if not all(writer.translates for writer in writers):
            raise HparamsError(
                f"field '{field}': both must be encoder-decoder models, one for each direction"
            )
        return writers

    def texts(self, request: EditRequest, templates: list[str]) -> Iterator[str]:
        for template in templates:
            for text in self.cached_texts(template):
                yield without_full_stop(answer_line(text, request.subject) or text, template)

    def write(self, text: str) -> list[str]:
        there, back = self.writers
        length = self.options.psem_max_new_tokens
        translations = there.beams([text], CANDIDATES, length)
        return back.beams(list(dict.fromkeys(translations)), 1, length)

    def cache_key(self, text: str) -> dict[str, Any]:
        return {
            "kind": "translation",
            "weights": self.written_by(),
            "text": text,
            "vocabularies": [writer.vocabulary for writer in self.writers],
            "ids": self.writers[0].ids(text),
            "candidates": CANDIDATES,
            "max_new_tokens": self.options.psem_max_new_tokens,
        }

    def written_by(self) -> list[str]:
        return [writer.weights for writer in self.writers]
