"""A model together with the log of its edits: edits, undoes and answers, one at a time."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .. import resources
from ..arch.chat import prompt_tokenizer
from ..arch.tokens import text_ids
from ..arch.vocabulary import check_lengths
from ..data.related import related_prompts
from ..editlog import EditLog, recording, undo
from ..edits.request import prepare
from ..edits.write import restore
from ..errors import NeuronEditError
from ..evaluation.answers import ANSWER_TOKENS, answers
from ..hyperparameters.base import HyperParams
from ..models.lasting.firing import Response, responses
from ..registry import MethodSpec

MOST_RELATED = 3
"""Rephrasings and neighbours that are asked where the caller names none."""
MOST_ASKED = 10
"""Prompts of an edit that are asked when it is undone."""


@dataclass(frozen=True)
class Asked:
    """What the model said to a prompt before a change of its weights, and says after it.

    ``kind``: ``edited``, ``rephrased``, ``neighbour`` or ``undone``.
    """

    kind: str
    prompt: str
    before: str
    after: str


@dataclass(frozen=True)
class Change:
    """An entry of the log: ``number`` of an edit, or of the undo of edit ``of``."""

    number: int
    asked: list[Asked]
    seconds: float
    of: int | None = None


class EditedModel:
    """A model with the edits of a log. Every method may be called from any thread.

    One lock guards the model: no text is generated while weights change, and an answer or a list of answers
    is that of one state. A failed edit leaves weights and log as they were. An edit is in the log, and on the
    disk, when ``edit`` returns.

    Attributes:
        model, tok: the model with the edits of ``log``, and its tokenizer.
        log: the log, held by this process alone.
        method, hparams: with which edits are made.
    """

    def __init__(
        self, model: torch.nn.Module, tok: Any, log: EditLog, method: MethodSpec, hparams: HyperParams
    ):
        self.model, self.tok, self.log = model, tok, log
        self.method, self.hparams = method, hparams
        self._prompt_tok = prompt_tokenizer(tok, hparams)
        self._lock = threading.RLock()

    @property
    def name(self) -> str:
        """Short name of the base model; of a folder or file its last part."""
        name = self.log.base.name if self.log.entries else self.hparams.model_name
        short_name = resources.model_short_name(resources.model_path(name))
        return Path(short_name).name if Path(short_name).expanduser().exists() else short_name

    @contextmanager
    def whole(self) -> Iterator[int]:
        """Hold the model as it is; yields the number of the log's newest entry, 0 without edits."""
        with self._lock:
            yield len(self.log.entries)

    def answers(self, prompts: Sequence[str], tokens: int = ANSWER_TOKENS) -> list[str]:
        """Greedy answers to prompts, asked as edits are made: inside the chat template or not."""
        with self._lock:
            check_lengths(self.model, text_ids(self._prompt_tok, prompts))
            return answers(self.model, self._prompt_tok, prompts, tokens)

    def edit(
        self,
        prompt: str,
        subject: str,
        target: str,
        rephrasings: Sequence[str] = (),
        neighbours: Sequence[str] = (),
    ) -> Change:
        """Edit one fact, and ask it and the prompts beside it before and afterwards.

        Args:
            prompt, subject, target: the fact, as EasyEdit has it.
            rephrasings, neighbours: asked too; none: those of a relation that the package knows, if any.

        Raises:
            NeuronEditError: the request or the edit is refused, or the method gives no record of its edits.
        """
        request = {"prompt": prompt, "subject": subject, "target_new": target}
        prepare([request])
        known_rephrasings, known_neighbours = related_prompts(prompt, subject)
        rephrasings = rephrasings or known_rephrasings[:MOST_RELATED]
        neighbours = neighbours or known_neighbours[:MOST_RELATED]
        prompts = [prompt, *rephrasings, *neighbours]
        kinds = ["edited"] + ["rephrased"] * len(rephrasings) + ["neighbour"] * len(neighbours)
        with self._lock:
            before, started = self.answers(prompts), time.perf_counter()
            self._apply(request)
            seconds = time.perf_counter() - started
            asked = map(Asked, kinds, prompts, before, self.answers(prompts))
            return Change(self.log.ids[-1], list(asked), seconds)

    def undo(self, number: int) -> Change:
        """Take an edit out of the weights; ``StateError`` where it is not in them."""
        with self._lock:
            requests = self.log.edit_entry(number)["requests"]
            prompts = [request["prompt"] for request in requests[:MOST_ASKED]]
            before, started = self.answers(prompts), time.perf_counter()
            entry = undo(self.model, self.log, number)
            seconds = time.perf_counter() - started
            asked = map(Asked, ["undone"] * len(prompts), prompts, before, self.answers(prompts))
            return Change(entry, list(asked), seconds, number)

    def edits(self) -> list[dict[str, Any]]:
        """All edits of the log, oldest first, see ``describe``; also those that were undone."""
        with self._lock:
            return [self.describe(entry["id"]) for entry in self.log.entries if "file" in entry]

    def has_edit(self, number: int) -> bool:
        """Whether the log has an edit of this number, in the weights or not."""
        entries = self.log.entries
        return 1 <= number <= len(entries) and "file" in entries[number - 1]

    def describe(self, number: int) -> dict[str, Any]:
        """``id``, ``method``, ``requests`` (prompt, subject, target_new), ``chat``, ``changes`` by parameter,
        and ``in_weights``, of an edit; ``StateError`` for none."""
        with self._lock:
            entry, fields = self.log.edit_entry(number), ("prompt", "subject", "target_new")
            return {
                "id": number,
                "method": entry["method"],
                "in_weights": number in self.log.ids,
                "chat": bool(entry.get("use_chat_template", False)),
                "requests": [{name: request.get(name) for name in fields} for request in entry["requests"]],
                "changes": entry["changes"],
            }

    def responses(self, prompts: Sequence[str], only: int | None = None) -> list[list[Response]]:
        """For each prompt what the neurons of Lasting's edits in the weights do at its tokens.

        ``only``: the neurons of this edit.
        """
        with self._lock:
            numbers = [number for number in self.log.ids if only in (None, number)]
            own = [number for number in numbers if self.log.edit_entry(number)["method"] == "Lasting"]
            records = {number: self.log[number] for number in own}
            return responses(self.model, self._prompt_tok, records, prompts)

    def _apply(self, request: dict[str, str]) -> None:
        earlier = len(self.log.entries)
        with recording(self.model, self.log):
            edit = self.method.load_apply()
            _, originals = edit(self.model, self.tok, [request], self.hparams, return_orig_weights=True)
            if len(self.log.entries) == earlier:
                restore(self.model, originals)
                reason = f"{self.method.name} gives no record of its edits, so that none can be kept"
                raise NeuronEditError(f"{reason}: --method names another one, such as AlphaEdit")
