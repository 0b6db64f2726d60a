"""Running sums of ``k k^T``: symmetric, so half of the work; on the layer's device or in host memory."""

import torch

from ..arch.view import ModelView
from ..errors import StateError
from ..utils.memory import is_out_of_memory
from .memory_use import announce, near, to_host, zeros_near

BLOCK = 256
"""Rows that are added together. Of d_ff 2048, 56% of the square is computed (a product as a whole takes 1.5
times as long)."""


class KeySums:
    """``sum_t k_t k_t^T`` of some layers, upper triangle by blocks of rows.

    float32 sums differ from float64 ones by about 1e-6 of the largest eigenvalue at 10^5 to 10^6 tokens,
    growing with the square root of the number of batches (3e-6 at 4 10^6 tokens, of random keys at d_ff 256):
    that is the size of the float32 eigen- decomposition's own error, so that nothing finer is done about it.
    Small eigenvalues suffer less than that bound says where the large ones live in few neurons: of the
        shipped model's layer 4 (166,604 tokens, largest eigenvalue 10^5) at most one
    eigenvalue changes its side of 1e-2, 1e-3 or 1e-4. Where that matters, or for a text of 10^8 tokens,
    float64 is there: twice the memory, and more than twice the time.

    Args:
        view: the model.
        layers: layers to sum for.
        dtype: of the sums.

    Attributes:
        count: tokens added so far; the caller counts.
        sums: layer -> [d_ff, d_ff]; below the diagonal blocks not yet meaningful.

    Raises:
        StateError: there is no memory for the sums.
    """

    def __init__(self, view: ModelView, layers: list[int], dtype: torch.dtype):
        self.count = 0
        self.dtype = dtype
        self._devices = {layer: view.device_of(layer) for layer in layers}
        announce(layers, view.d_ff, dtype, {str(device) for device in self._devices.values()})
        self.sums = {l: zeros_near(view.d_ff, dtype, device, _what(l)) for l, device in self._devices.items()}

    def add(self, layer: int, keys: torch.Tensor) -> None:
        """Adds the keys [N, d_ff] of a layer, in the dtype of the sums. Running out of memory in the middle
        adds nothing twice.

        Raises:
            StateError: no memory although the sums are in host memory; the sums are of no use then.
        """
        start = 0
        while start < keys.shape[1]:
            try:
                self._add_rows(layer, start, keys)
                start += BLOCK
                continue
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                if self.sums[layer].device.type == "cpu":
                    raise StateError(
                        f"{_what(layer)}: no room even to add {BLOCK} of its rows ({error})"
                    ) from error
            # the rows that did not fit were not added; those before them were
            to_host(_what(layer), self.sums[layer].device)
            self.sums[layer] = self.sums[layer].cpu()

    def _add_rows(self, layer: int, start: int, keys: torch.Tensor) -> None:
        target = self.sums[layer][start : start + BLOCK, start:]
        rows, columns = keys[:, start : start + BLOCK].T, keys[:, start:]
        if target.device == keys.device:
            target.addmm_(rows, columns)
        else:  # the product where the keys are: a GPU makes and sends it faster than a CPU would compute it
            target.add_((rows @ columns).to(target.device))

    def restore(self, sums: dict[int, torch.Tensor], count: int) -> None:
        """Continues from earlier sums."""
        for layer, tensor in sums.items():
            self.sums[layer].copy_(tensor)
        self.count = count

    def covariances(self) -> dict[int, torch.Tensor]:
        """layer -> C, computed in place of the sums; on the layer's device where there is room. The sums are
        gone then."""
        found = {}
        for layer in list(self.sums):
            matrix = self.sums.pop(layer).div_(self.count)
            for start in range(0, len(matrix), BLOCK):
                stop = start + BLOCK
                square = matrix[start:stop, start:stop]
                square.copy_((square + square.T) / 2)
                matrix[stop:, start:stop] = matrix[start:stop, stop:].T
            found[layer] = near(matrix, self._devices[layer], f"covariance of layer {layer}")
        return found


def _what(layer: int) -> str:
    return f"sums of the keys of layer {layer}"
