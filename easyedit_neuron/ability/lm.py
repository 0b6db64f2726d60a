"""lm-eval's view of a model in memory, with batches that the logits of a large vocabulary fit into."""

from typing import Any

from lm_eval.models.huggingface import HFLM

LOGITS_BYTES = 1 << 31
"""Most bytes of the logits of a batch: lm-eval has those of every position in float32, and beside them their
log-softmax."""


class BoundedLM(HFLM):
    """``HFLM`` whose batches of choices are as large as ``batch_size`` and ``LOGITS_BYTES`` allow."""

    def _loglikelihood_tokens(
        self, requests: list[tuple[Any, list[int], list[int]]], disable_tqdm: bool = False, override_bs=None
    ):
        allowed = self.batch_size_per_gpu
        if requests:
            longest = max(len(context) + len(continuation) for _, context, continuation in requests)
            fits = rows_that_fit(min(longest, self.max_length), self.model.config.vocab_size)
            self.batch_size_per_gpu = min(allowed, fits)
        try:
            return super()._loglikelihood_tokens(requests, disable_tqdm, override_bs)
        finally:
            self.batch_size_per_gpu = allowed


def rows_that_fit(tokens: int, vocabulary: int) -> int:
    """Rows of so many tokens whose float32 logits and log-softmax have at most ``LOGITS_BYTES``; at least
    one."""
    return max(1, LOGITS_BYTES // (2 * 4 * tokens * vocabulary))
