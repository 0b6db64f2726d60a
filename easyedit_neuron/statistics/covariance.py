"""Uncentred second moment of the keys of all edited layers in one pass."""

import logging
from collections.abc import Iterable, Sized
from itertools import islice

import torch

from ..arch.capture import Capture
from ..arch.tokens import pad
from ..arch.view import ModelView
from ..arch.widen import own_width
from ..errors import DataError, StateError
from ..utils.memory import is_out_of_memory
from ..utils.progress import progress
from .key_sums import KeySums
from .matrix_files import UnfinishedSums
from .windows import WINDOW_CHARACTERS, head, pieces, windows

LOG = logging.getLogger(__name__)
TOKENS_PER_BATCH = 4096
"""Enough to keep a GPU busy; more is slower on a CPU."""


@torch.no_grad()
def covariances(
    view: ModelView,
    tok,
    texts: Iterable[str],
    layers: list[int],
    max_length: int = 256,
    dtype: torch.dtype = torch.float32,
    tokens_per_batch: int = TOKENS_PER_BATCH,
    unfinished: UnfinishedSums | None = None,
    window: int = WINDOW_CHARACTERS,
    cut: bool = False,
) -> dict[int, torch.Tensor]:
    """``C_l = 1/N sum_t k_t k_t^T`` over all N tokens of the texts (MEMIT, Eq. 15).

    k is the input of layer l's down projection; the forward ends in front of the last one. Padding never
    counts. Texts are read, tokenised and sorted by length a window at a time; windows and batches change the
    result by rounding only. A batch that does not fit into memory is halved and run again, and later ones are
    no larger.

    Args:
        view, tok: model and tokenizer.
        texts: plain text, in the same order at each call with the same ``unfinished``.
        layers: layers to measure together.
        max_length: longest piece in tokens. Default 256.
        dtype: dtype of the sums; see ``KeySums`` for the error of float32 (default).
        tokens_per_batch: tokens of a forward, padding included. Default 4096.
        unfinished: saved sums to continue from and to update from time to time. The caller removes the file
            once the result is saved. Default: nothing is saved.
        window: characters of a window. Default 2^16.
        cut: what a text has behind ``max_length`` does not count, as in EasyEdit. Default: it is split.

    Returns:
        ``{layer: [d_ff, d_ff]}``, symmetric, on the device of the layer's weight, or in host memory if there
        is no room.

    Raises:
        DataError: the texts have no token.
        StateError: no memory for the sums or for a single piece; ``unfinished`` is damaged or foreign.
    """
    sums = KeySums(view, layers, dtype)
    done = 0
    if unfinished is not None:
        done, tokens_per_batch = unfinished.load(sums, tokens_per_batch)
    total = len(texts) if isinstance(texts, Sized) else done
    with progress("covariance of the keys", total, "text", done) as shown:
        for group in windows(islice(texts, done, None), window):
            tokens_per_batch = _add(view, sums, pieces(tok, group, max_length, cut), tokens_per_batch)
            done += len(group)
            shown.add(len(group))
            if unfinished is not None:
                unfinished.save(sums, done, tokens_per_batch)
    if not sums.count:
        raise DataError("mom2_dataset: the texts have no tokens in this model's vocabulary")
    return sums.covariances()


def _add(view: ModelView, sums: KeySums, rows: list[list[int]], tokens: int) -> int:
    """Add the keys of the rows, longest first; return the tokens per batch that fitted into memory."""
    while rows:
        batch = head(rows, tokens)
        try:
            keys = _keys(view, batch, list(sums.sums), sums.dtype)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if len(batch) == 1:
                raise StateError(
                    f"no memory for the forward of a single piece of {len(batch[0])} tokens: lower "
                    f"'mom2_max_length' ({error})"
                ) from error
            keys = None
        if keys is None:  # outside of the handler, whose traceback holds the tensors of the failed forward
            tokens = len(batch[0]) * (len(batch) // 2)
            LOG.warning(
                "%d pieces of up to %d tokens do not fit into memory: going on with %d tokens at once",
                len(batch),
                len(batch[0]),
                tokens,
            )
            torch.cuda.empty_cache()  # does nothing without CUDA
            continue
        for layer in list(keys):
            sums.add(layer, keys.pop(layer))
        sums.count += sum(map(len, batch))
        rows = rows[len(batch) :]
    return tokens


def _keys(
    view: ModelView, rows: list[list[int]], layers: list[int], dtype: torch.dtype
) -> dict[int, torch.Tensor]:
    """``{layer: keys [N, d_ff]}`` of all tokens of the rows."""
    batch = pad(rows, view.input_device)
    with Capture(view, layers, stop_after="key") as seen:
        view.model(**batch.inputs, use_cache=False)
    real = batch.attention_mask.bool()
    # Popped, so that padded and selected keys exist together for one layer at a time.
    width = own_width(view)
    return {layer: _select(seen.key.pop(layer)[..., :width], real).to(dtype) for layer in layers}


def _select(keys: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    return keys.flatten(0, 1) if bool(real.all()) else keys[real.to(keys.device)]
