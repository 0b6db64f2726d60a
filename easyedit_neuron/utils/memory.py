"""Running out of memory, and going on with less."""

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

LOG = logging.getLogger(__name__)
_CPU_WORDS = ("not enough memory", "DefaultCPUAllocator: can't allocate memory")
Item, Result = TypeVar("Item"), TypeVar("Result")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that an allocation failed, on a GPU or (``DefaultCPUAllocator``) in main
    memory."""
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _CPU_WORDS)


def in_batches(
    items: Sequence[Item], size: int, run: Callable[[Sequence[Item]], Sequence[Result]], what: str
) -> list[Result]:
    """Results of ``run``, one per item; arguments and errors as those of ``batch_results``."""
    return [result for batch in batch_results(items, size, run, what) for result in batch]


def batch_results(
    items: Sequence[Item], size: int, run: Callable[[Sequence[Item]], Result], what: str
) -> list[Result]:
    """What ``run`` gives for consecutive batches of the items; a batch that does not fit is halved and run
    again.

    Args:
        items: what is worked through, in order.
        size: items in the first batch; what did not fit once is not tried again.
        run: leaves nothing behind when it fails.
        what: for the log line.

    Raises:
        The error of ``run``: any that is no lack of memory, and that too when a single item does not fit.
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
        # outside of the handler: the traceback holds the tensors of the failed batch
        LOG.warning("%s: %d at once do not fit into memory, going on with %d", what, len(batch), size)
        torch.cuda.empty_cache()  # does nothing without CUDA
    return results
