"""A guard between the edits of one call of the built-in editor."""

import logging
from collections.abc import Sequence

import torch

from ..edits.write import restore
from ..evaluation.guard import Guard
from ..evaluation.quality import prompt_tokenizer_of

LOG = logging.getLogger(__name__)


class GuardedSequence:
    """Asks the guard, if there is any, after the edits for which it is due, and takes edits back where it
    says so.

    ``hparams``: those of the edits, whose form is asked.
    ``records``: the caller's list of edit records, cut with the edits. ``remaining``: number of edits that
    are in the model when the call ends early.
    """

    def __init__(self, guard: Guard | None, model, tok, records: list | None, hparams):
        self.guard, self.model, self.tok, self.records = guard, model, tok, records
        self._originals: dict[str, torch.Tensor] = {}  # weights at the newest reading within the limits
        self._good, self._good_records = 0, 0 if records is None else len(records)
        self.remaining, self._took_back = 0, False
        if guard is not None:
            guard.begin(model, tok, prompt_tokenizer_of(tok, hparams))

    def ends(self, model, first: int, requests: Sequence[dict], originals: dict[str, torch.Tensor]) -> bool:
        """Whether the call ends after the edits ``first`` ... of ``requests`` so far.

        Args:
            model: as edited.
            first: number of edits before the newest batch.
            requests: all edits so far.
            originals: weights before the newest batch.
        """
        guard, done = self.guard, len(requests)
        self.remaining = done
        if guard is None:
            return False
        if guard.rolls_back:
            self._originals = {**originals, **self._originals}
        if not guard.due(first, done):
            return False
        reading = guard.read(model, self.tok, done, requests)
        if not reading.breaches:
            self._originals, self._good = {}, done
            self._good_records = 0 if self.records is None else len(self.records)
            return False
        LOG.warning("guard %s", reading)
        if guard.rolls_back:
            restore(self.model, self._originals)
            self._took_back = True
            self.remaining = self._good
            if self.records is not None:
                del self.records[self._good_records :]
        return guard.action != "warn"

    def staying(
        self, metrics: list[dict], originals: dict[str, torch.Tensor]
    ) -> tuple[list[dict], dict[str, torch.Tensor]]:
        """The metrics of the edits that stay, and the weights before the newest of them, which are of no use
        once edits have been taken back."""
        return metrics[: self.remaining], {} if self._took_back else originals
