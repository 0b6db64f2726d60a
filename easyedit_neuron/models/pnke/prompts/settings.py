"""What P_sem is made from."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from ....errors import HparamsError
from ....hyperparameters.model import require
from ....utils.suggest import did_you_mean

SOURCES = ("dataset", "paraphrase", "translation", "context")
CacheBy = Literal["strict", "text"]


@dataclass(frozen=True, kw_only=True)
class PromptSettings:
    """How many prompts, from where.

    Attributes:
        m: prompts per request; the paper takes 10 and tried 5 to 15.
        sources: which of ``SOURCES`` are asked, in this order, until there are ``m``. A request's
            ``rephrase_prompt`` is also what generalisation is measured on: leave out ``dataset`` where the
            two must not meet.
        seed: of the sampling of paraphrases; no global random state is read or changed.
        cache_dir: folder of the written texts; None: nothing is kept.
        paraphrase_model: name, folder or ``(model, tokenizer)`` (or an object with ``.model`` and
            ``.tokenizer``, as a transformers pipeline) of a causal or an encoder-decoder model; None: the
            edited model, with the weights that it has.
        translation_models: two of those, encoder-decoders: to the other language, and back. None: the source
            is passed over.
        contexts: groups of templates with one ``{}``, as ``context_templates.contexts_of`` makes; the bare
            ``"{}"`` is no prefix.
        max_new_tokens: longest written text.
        candidates: texts written from each template (the prompt, and each dataset rephrasing if that source
            is named), before they are filtered.
        temperature, top_k: of the sampling. The first candidate is always the greedy one.
        instruction: text with ``{prompt}`` (and, if it likes, ``{subject}``) that asks for a paraphrase;
            None: one that suits the model (with a chat template, without one, or an encoder-decoder).
        paraphrase_cache: what stands for the model in the key of a paraphrase. ``strict``: its weights as
            they are, so that a cached text is the one that would be written now; of the edited model in a
            sequence of edits no text is then ever found again, and all its weights are read once per call.
            ``text``: its configuration only. What was written first, by whatever weights, then serves all
                edits and all runs of a sweep, which so compare methods under the same P_sem;
            the file names the weights that wrote it. Without ``cache_dir`` neither costs anything.
        device: of models given by name; None: that of the edited model.
    """

    m: int = 10
    sources: tuple[str, ...] = SOURCES
    seed: int = 0
    cache_dir: str | Path | None = None
    paraphrase_model: Any = None
    translation_models: tuple[Any, Any] | None = None
    contexts: list[list[str]] = field(default_factory=list)
    max_new_tokens: int = 40
    candidates: int = 10
    temperature: float = 1.0
    top_k: int = 40
    instruction: str | None = None
    paraphrase_cache: CacheBy = "strict"
    device: str | None = None

    def __post_init__(self) -> None:
        for name in ("m", "max_new_tokens", "candidates", "temperature", "top_k"):
            require(getattr(self, name) > 0, name, f"must be greater than 0, got {getattr(self, name)}")
        require(self.seed >= 0, "seed", f"must not be negative, got {self.seed}")
        for source in self.sources:
            if source not in SOURCES:
                raise HparamsError(
                    f"field 'sources': unknown source {source!r}: {did_you_mean(source, SOURCES)}"
                )
        require(
            len(set(self.sources)) == len(self.sources),
            "sources",
            f"must name each source once, got {list(self.sources)}",
        )
        require(
            self.paraphrase_cache in get_args(CacheBy),
            "paraphrase_cache",
            f"must be 'strict' or 'text', got {self.paraphrase_cache!r}",
        )
        require(
            self.instruction is None or self.instruction.count("{prompt}") == 1,
            "instruction",
            f"must hold '{{prompt}}' exactly once, got {self.instruction!r}",
        )
        require(
            self.translation_models is None or len(self.translation_models) == 2,
            "translation_models",
            "must name two models: into the other language, and back",
        )
        for template in (template for group in self.contexts for template in group):
            require(template.count("{}") == 1, "contexts", f"{template!r} must hold '{{}}' exactly once")
