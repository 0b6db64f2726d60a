"""The four sources of P_sem (PNKE, Appendix B.1). Each gives texts for a request, in a fixed order, not yet
filtered.

A source is asked with the request and its templates: the prompt, then the dataset's rephrasings (Algorithm 1,
line 6).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ....edits.request import EditRequest
from ....errors import HparamsError, RequestError
from ....utils.fingerprint import key_fingerprint
from .cache import TextCache
from .clean import answer_line, without_full_stop
from .settings import PromptSettings
from .writer import Writer

REPHRASINGS = ("rephrase_prompt", "rephrase_prompts", "rephrase", "paraphrase_prompts")
"""Keys under which EasyEdit, its callers, MEND's zsRE and KnowEdit, and CounterFact keep other wordings of a
prompt."""

CHAT = (
    'Rewrite the prompt below in other words. Keep the name "{subject}" exactly as it is, do not give the answer, and stop '
    "where the answer would follow. Reply with the rewritten prompt only.\n\nPrompt: {prompt}"
)
PLAIN = (
    "Each prompt is followed by the same prompt in other words.\n\nPrompt: The capital of Sweden is\nIn other words: "
    "The city that is the capital of Sweden is\n\nPrompt: {prompt}\nIn other words:"
)
SEQ2SEQ = "paraphrase: {prompt}"


class DatasetRephrasings:
    """Other wordings that the request's dictionary brings along, as a text or a list of texts."""

    written = False

    def texts(self, request: EditRequest, templates: list[str]) -> Iterator[str]:
        """Raises ``RequestError`` for a field that holds something else."""
        for name in REPHRASINGS:
            value = request.raw.get(name)
            found = [value] if isinstance(value, str) else [] if value is None else value
            if not isinstance(found, (list, tuple)) or not all(isinstance(text, str) for text in found):
                raise RequestError(
                    f"request {request.index}: field {name!r} must be a text or a list of texts, got {value!r}"
                )
            yield from (text.replace("{}", request.subject).strip() for text in found)


class Paraphrases:
    """Texts that a language model writes when it is asked for the template in other words.

    Args:
        writer: gives the model; called when the first paraphrase is wanted.
        settings, cache: as everywhere.
    """

    written = True

    def __init__(self, writer: Callable[[], Writer], settings: PromptSettings, cache: TextCache):
        self._writer, self._settings, self._cache = writer, settings, cache

    def texts(self, request: EditRequest, templates: list[str]) -> Iterator[str]:
        writer, settings = self._writer(), self._settings
        form = settings.instruction or (SEQ2SEQ if writer.translates else CHAT if writer.chats else PLAIN)
        for template in templates:
            asked = form.replace("{subject}", request.subject).replace("{prompt}", template)
            for text in self._written(writer, asked):
                yield answer_line(text, request.subject) or text

    def _written(self, writer: Writer, asked: str) -> list[str]:
        s = self._settings
        ids = writer.ids(asked, chat=not writer.translates)
        drawn = {"seed": s.seed, "temperature": s.temperature, "top_k": s.top_k}

        def about() -> dict[str, Any]:
            model = (
                {"weights": writer.weights}
                if s.paraphrase_cache == "strict"
                else {"configuration": writer.configuration}
            )
            return {
                "kind": "paraphrase",
                **model,
                "vocabulary": writer.vocabulary,
                "asked": asked,
                "ids": list(ids),
                "candidates": s.candidates,
                "max_new_tokens": s.max_new_tokens,
                **({} if writer.translates else drawn),
            }

        def make() -> list[str]:
            if writer.translates:
                return writer.beams([asked], s.candidates, s.max_new_tokens)
            seed = (
                int(key_fingerprint({"seed": s.seed, "asked": asked}), 16) % 2**63
            )  # no two prompts get the same draws
            return writer.sample(
                ids, s.candidates, s.max_new_tokens, seed, s.temperature, s.top_k, one_line=not writer.chats
            )

        return self._cache.texts(about, make, lambda: writer.weights)


class BackTranslations:
    """The template in another language and back: the best translations there, each with its best way back.

    Args:
        there, back: give the two models; called when the first translation is wanted.
        settings, cache: as everywhere.

    Raises:
        HparamsError: one of them is no encoder-decoder.
    """

    written = True

    def __init__(
        self,
        there: Callable[[], Writer],
        back: Callable[[], Writer],
        settings: PromptSettings,
        cache: TextCache,
    ):
        self._there, self._back, self._settings, self._cache = there, back, settings, cache

    def texts(self, request: EditRequest, templates: list[str]) -> Iterator[str]:
        pair = there, back = self._there(), self._back()
        if not all(writer.translates for writer in pair):
            raise HparamsError(
                "field 'translation_models': both must be encoder-decoder models, one for each direction"
            )
        each, longest = self._settings.candidates, self._settings.max_new_tokens
        for template in templates:

            def about() -> dict[str, Any]:
                return {
                    "kind": "translation",
                    "weights": [writer.weights for writer in pair],
                    "text": template,
                    "vocabularies": [writer.vocabulary for writer in pair],
                    "ids": list(there.ids(template)),
                    "candidates": each,
                    "max_new_tokens": longest,
                }

            def make() -> list[str]:
                return back.beams(list(dict.fromkeys(there.beams([template], each, longest))), 1, longest)

            for text in self._cache.texts(about, make, lambda: [writer.weights for writer in pair]):
                yield without_full_stop(answer_line(text, request.subject) or text, template)


class ContextPrefixes:
    """Every template behind every context sentence.

    Args:
        contexts: groups of templates with one ``{}``.
    """

    written = False

    def __init__(self, contexts: list[list[str]]):
        self._contexts = [context for group in contexts for context in group if context.strip() != "{}"]

    def texts(self, request: EditRequest, templates: list[str]) -> Iterator[str]:
        for template in templates:
            for context in self._contexts:
                yield context.replace("{}", template)
