"""Detecting that memory ran out, and continuing with smaller batches."""

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

LOG = logging.getLogger(__name__)
_CPU_MESSAGES = ("not enough memory", "DefaultCPUAllocator: can't allocate memory")
Item = TypeVar("Item")
Result = TypeVar("Result")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that an allocation failed, on a GPU or in main memory."""
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error) for message in _CPU_MESSAGES)


def in_batches(
    items: Sequence[Item], size: int, run: Callable[[Sequence[Item]], Sequence[Result]], what: str
) -> list[Result]:
    """Results of ``run``, one per item. Arguments and errors as in ``batch_results``."""
    return [result for batch in batch_results(items, size, run, what) for result in batch]


def batch_results(
    items: Sequence[Item], size: int, run: Callable[[Sequence[Item]], Result], what: str
) -> list[Result]:
    """Results of ``run`` for consecutive batches; one that does not fit into memory is halved and run again.

    Args:
        items: the items in order.
        size: items in the first batch. Later batches are never larger than the last one that fitted.
        run: the computation; it must leave nothing behind when it fails.
        what: name of the computation, for the log.

    Raises:
        Exception: an error of ``run`` other than out-of-memory, or out-of-memory for a single item.
    """
    results: list[Result] = []
    done = 0
    while done < len(items):
        batch = items[done : done + size]
        try:
            results.append(run(batch))
        except Exception as error:
            if not is_out_of_memory(error) or len(batch) == 1:
                raise
            size = len(batch) // 2
        else:
            done += len(batch)
            continue
        # Outside of the handler: its traceback holds the tensors of the failed batch.
        LOG.warning("%s: %d at once do not fit into memory, going on with %d", what, len(batch), size)
        torch.cuda.empty_cache()  # does nothing without CUDA
    return results
