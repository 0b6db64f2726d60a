"""One call of an ``apply_*_to_model``, from EasyEdit's arguments to the written record: what all methods
share."""

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch

from ..arch.chat import prompt_tokenizer
from ..arch.verify import is_described_by_hand, verify_parts
from ..arch.view import ModelView, eval_mode
from ..arch.vocabulary import check_vocabulary
from ..utils.timing import Stopwatch
from .record import EditRecord, LayerDelta, UnitDelta
from .request import EditRequest, plain_request, prepare
from .session import commit, copy_of
from .write import fingerprint


@dataclass
class Edit:
    """The requests of one call, the model, and what the method has to report.

    Attributes:
        method: name for the record.
        view: the model, not changed before ``commit``.
        tok: the tokenizer, never changed; with ``use_chat_template`` a ``ChatTokenizer`` of it.
        requests: the checked requests, one batch.
        hparams: hyperparameters of the method.
        losses: loss curve of every request (or one curve, where the batch is trained as one).
        probability: of the new object at the end, per request.
        info: what else the method reports, as plain JSON values.
        watch: seconds by stage.
        deltas: layer -> low-rank change of its down projection.
        units: parameter name -> change of single rows or columns.
        contexts: groups of context templates that were used.
        fingerprint_before: of the edited parameters together; computed in ``commit`` where it is not known
            before.
    """

    method: str
    view: ModelView
    tok: Any
    requests: list[EditRequest]
    hparams: Any
    losses: list[list[float]] = field(default_factory=list)
    probability: list[float] = field(default_factory=list)
    info: dict[str, Any] = field(default_factory=dict)
    watch: Stopwatch = field(default_factory=Stopwatch)
    deltas: dict[int, LayerDelta] = field(default_factory=dict)
    units: dict[str, UnitDelta] = field(default_factory=dict)
    contexts: list[list[str]] = field(default_factory=list)
    fingerprint_before: str | None = None

    @classmethod
    def begin(cls, method: str, model, tok, requests: list[dict], hparams, copy: bool = False):
        """Check everything that can be checked before the work begins.

        Args:
            method: name for the record.
            model, tok: causal language model and tokenizer.
            requests: EasyEdit's request dictionaries.
            hparams: a ``ModelHyperParams``.
            copy: edit a deep copy of the model, which takes the model's session with it.

        Raises:
            NeuronEditError: bad requests, modules or layers that the model does not have, a tokenizer of
                another model, or one without a chat template where the edit is to be made inside it.
        """
        prepared, tok = prepare(requests), prompt_tokenizer(tok, hparams)
        view = ModelView.of(model, **hparams.module_overrides())
        if is_described_by_hand(view):
            verify_parts(view)
        cls.check(view, hparams)
        check_vocabulary(view.model, tok, [request.text + request.target_new for request in prepared])
        return cls(method, copy_of(view, hparams) if copy else view, tok, prepared, hparams)

    @staticmethod
    def check(view: ModelView, hparams) -> None:
        """Compare the hyperparameters with the model; methods with layers do."""

    def computing(self) -> AbstractContextManager[None]:
        """The block in which the method computes: no dropout."""
        return eval_mode(self.view.model)

    def commit(
        self, records: list[EditRecord] | None = None, return_orig_weights: bool = False
    ) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
        """Write ``deltas`` and ``units``, or leave everything as it was on an error.

        Args:
            records: the ``EditRecord`` is appended to it.
            return_orig_weights: return copies of the weights as they were.

        Returns:
            (edited model, {parameter name: original tensor}), the second empty unless asked for.
        """
        record = self._record()
        originals = commit(self.view, record)
        self.after_commit(record)
        if records is not None:
            records.append(record)
        return self.view.model, originals if return_orig_weights else {}

    def after_commit(self, record: EditRecord) -> None:
        """Note the written edit where a method keeps state of its own."""

    def _record(self) -> EditRecord:
        names = {layer: self.view.down_weight_name(layer) for layer in self.deltas}
        changed = [*names.values(), *self.units]
        return EditRecord(
            method=self.method,
            hparams=self.hparams.to_dict(),
            requests=[plain_request(request) for request in self.requests],
            contexts=[context for group in self.contexts for context in group],
            context_groups=[len(group) for group in self.contexts],
            layers=self.deltas,
            names=names,
            units=self.units,
            losses=self.losses,
            probability=self.probability,
            seconds=self.watch.seconds,
            fingerprint_before=self.fingerprint_before or fingerprint(self.view.model, changed),
            fingerprint_after="",
            seed=self.hparams.seed,
            info=self.info,
        )
