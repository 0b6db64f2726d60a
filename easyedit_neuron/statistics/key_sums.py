"""Running sums of ``k k^T``, computed as upper triangles; on the layer's device or in host memory."""

import torch

from ..arch.view import ModelView
from ..arch.widen import own_width
from ..errors import StateError
from ..utils.memory import is_out_of_memory
from .memory_use import leave_full_device, log_memory_needs, to_device_or_host, zeros_on_device_or_host

BLOCK = 256
"""Rows that are added together. With d_ff 2048, 56% of the square is computed; the whole product takes 1.5
times as long."""


class KeySums:
    """``sum_t k_t k_t^T`` of several layers, upper triangle by blocks of rows.

    float32 sums differ from float64 ones by about 1e-6 of the largest eigenvalue at 10^5 to 10^6 tokens. The
    difference grows with the square root of the number of batches: 3e-6 at 4 10^6 tokens of random keys with
    d_ff 256. That is the size of the float32 eigen-decomposition's own error. Small eigenvalues suffer less
    where the large ones live in few neurons: in the shipped model's layer 4 (166,604 tokens, largest
    eigenvalue 10^5) at most one eigenvalue changes its side of 1e-2, 1e-3 or 1e-4. float64 takes twice the
    memory and more than twice the time; it is for texts of about 10^8 tokens.

    Args:
        view: the model.
        layers: layers to sum for.
        dtype: of the sums.

    Attributes:
        count: tokens added so far; the caller counts them.
        sums: ``{layer: [d_ff, d_ff]}``; entries below the diagonal blocks are not meaningful yet.

    Raises:
        StateError: there is no memory for the sums.
    """

    def __init__(self, view: ModelView, layers: list[int], dtype: torch.dtype):
        self.count = 0
        self.dtype = dtype
        self._devices = {layer: view.device_of(layer) for layer in layers}
        width = own_width(view)
        log_memory_needs(layers, width, dtype, {str(device) for device in self._devices.values()})
        self.sums = {
            layer: zeros_on_device_or_host(width, dtype, device, _name(layer))
            for layer, device in self._devices.items()
        }

    def add(self, layer: int, keys: torch.Tensor) -> None:
        """Add the keys ``[N, d_ff]`` of a layer, in the dtype of the sums.

        Running out of GPU memory moves the layer's sums to the host; nothing is added twice.

        Raises:
            StateError: no memory although the sums are in host memory. The sums are unusable then.
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
                        f"{_name(layer)}: no room even to add {BLOCK} of its rows ({error})"
                    ) from error
            # The rows that did not fit were not added, so the same block is added again.
            leave_full_device(self.sums[layer].device, _name(layer))
            self.sums[layer] = self.sums[layer].cpu()

    def _add_rows(self, layer: int, start: int, keys: torch.Tensor) -> None:
        target = self.sums[layer][start : start + BLOCK, start:]
        rows, columns = keys[:, start : start + BLOCK].T, keys[:, start:]
        if target.device == keys.device:
            target.addmm_(rows, columns)
        else:  # a GPU computes and sends the product faster than a CPU would compute it
            target.add_((rows @ columns).to(target.device))

    def restore(self, sums: dict[int, torch.Tensor], count: int) -> None:
        """Continue from saved sums of ``count`` tokens."""
        for layer, tensor in sums.items():
            self.sums[layer].copy_(tensor)
        self.count = count

    def covariances(self) -> dict[int, torch.Tensor]:
        """``{layer: C}``, on the layer's device if there is room. Computed in place: the sums are gone."""
        covariances = {}
        for layer in list(self.sums):
            matrix = self.sums.pop(layer).div_(self.count)
            # Make the diagonal blocks symmetric and mirror the upper triangle.
            for start in range(0, len(matrix), BLOCK):
                stop = start + BLOCK
                square = matrix[start:stop, start:stop]
                square.copy_((square + square.T) / 2)
                matrix[stop:, start:stop] = matrix[start:stop, stop:].T
            covariances[layer] = to_device_or_host(
                matrix, self._devices[layer], f"covariance of layer {layer}"
            )
        return covariances


def _name(layer: int) -> str:
    return f"sums of the keys of layer {layer}"
