"""What Lasting remembers of a model between its edits."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ...arch.chat import prompt_tokenizer
from ...arch.view import ModelView
from ...edits.record import EditRecord
from ...edits.request import EditRequest, Fact, prepare
from ...edits.session import ModelSession
from ...hyperparameters.base import distinguishing
from ...locate_then_edit.context_templates import contexts_of
from ...utils.fingerprint import key_fingerprint
from .background import Background, Moments, measured_background

SETTING_FIELDS = (
    *("layers", "context_prompts", "context_length", "context_templates", "context_template_length_params"),
    *("mom2_dataset", "mom2_n_samples", "mom2_max_length", "stats_dir", "seed", "easyedit_quirks"),
    *("match_ridge", "text_share", "name_share", "sink_share", "name_templates", "use_chat_template"),
)
"""Hyperparameters on which contexts and backgrounds depend."""


@dataclass(frozen=True)
class LastingState:
    """Values of the model before its first edit under a setting, and the edits so far.

    Attributes:
        moments: layer (as text) -> tensors of its ``Background``.
        leads: beginnings of names, all tokens but the last.
        contexts: groups of context templates.
        edits: (layer, neurons, fact) of every edit, oldest first; those whose neurons are zero again are out
            of the model.
    """

    moments: dict[str, Moments]
    leads: list[list[int]]
    contexts: list[list[str]]
    edits: list[tuple[int, list[int], Fact]] = field(default_factory=list)

    @classmethod
    def of(cls, view: ModelView, tok, hparams) -> LastingState:
        """The model's state, with the edits that are in its weights; a new one where there is none.

        ``tok``: the tokenizer, or that of the prompts. Edits in a chat tell their subjects from names there.
        """
        tok = prompt_tokenizer(tok, hparams)
        state = ModelSession.of(view.model).method_state.get(_key(hparams))
        if state is None:
            return cls(*measured_background(view, tok, hparams), contexts_of(view.model, tok, hparams))
        edits = [(layer, list(units), tuple(fact)) for layer, units, fact in state.edits]
        present = [edit for edit in edits if bool(view.down_matrix(edit[0])[:, edit[1]].any())]
        return dataclasses.replace(state, edits=present)

    def keep(self, view: ModelView, hparams, edits: list[tuple[int, list[int], Fact]]) -> None:
        """Note edits that have been written."""
        state = dataclasses.replace(self, edits=[*self.edits, *edits])
        ModelSession.of(view.model).method_state[_key(hparams)] = state

    def follow(self, view: ModelView, hparams, records: Iterable[EditRecord]) -> None:
        """Note edits that were put into the weights again from their records, oldest first."""
        edits = [
            (layer, list(units), request.fact)
            for record in records
            for (layer, units), request in zip(record.info.get("neurons", []), prepare(record.requests))
        ]
        self.keep(view, hparams, edits)

    def background(self, view: ModelView, hparams, layer: int) -> Background:
        """That of the unedited model; kept in memory with its factor."""
        cache, key = ModelSession.of(view.model).cache, f"background of layer {layer}, {_key(hparams)}"
        if key not in cache or cache[key].moment is not self.moments[str(layer)]["moment"]:
            cache[key] = Background(**self.moments[str(layer)], ridge=hparams.match_ridge)
        return cache[key]

    def layer_of(self, request: EditRequest, hparams) -> int:
        """Layer of a request's neuron: that of the subject's earlier edits, or one that its name draws."""
        for layer, _, (subject, _, _) in reversed(self.edits):
            if subject == request.subject:
                return layer
        return hparams.layers[zlib.crc32(request.subject.encode()) % len(hparams.layers)]


def _key(hparams: Any) -> str:
    values = distinguishing({name: getattr(hparams, name) for name in SETTING_FIELDS})
    return f"lasting {key_fingerprint(values)}"
