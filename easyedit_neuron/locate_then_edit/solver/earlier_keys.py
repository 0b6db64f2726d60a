"""The Gram matrix of a buffer's keys, for systems that are restricted to some rows."""

import torch

from .key_buffer import KeyBuffer

BLOCK = 256  # keys that one matrix product takes up; bounds the memory of their copy in the solver's dtype


class EarlierGram:
    """``C_p = M M^T`` of a buffer's keys, restricted to some rows; the whole [d_ff, d_ff] is made only with
    many keys."""

    def __init__(self, buffer: KeyBuffer):
        self._buffer, self._version = buffer, buffer.version
        self._sum: torch.Tensor | None = None
        self._count = 0  # keys in the sum

    @property
    def held_bytes(self) -> int:
        return 0 if self._sum is None else self._sum.numel() * self._sum.element_size()

    def saved(self) -> dict:
        """What ``restore`` needs."""
        return {"version": self._version, "sum": self._sum, "count": self._count}

    def restore(self, saved: dict) -> None:
        """Goes on where the saved one was."""
        self._version, self._sum, self._count = saved["version"], saved["sum"], saved["count"]

    def add_to(self, system: torch.Tensor, index: torch.Tensor) -> None:
        """Adds ``C_p[index, index]`` to ``system`` [s, s]: O(s^2) and, now and then, d_ff^2 a key."""
        if self._buffer.unchanged_since(self._version) < self._count:
            self._sum, self._count = None, 0
        self._version = self._buffer.version
        while len(self._buffer) - self._count >= BLOCK:
            block = self._buffer.rows(self._count, self._count + BLOCK).to(system)
            if self._sum is None:
                self._sum = system.new_zeros(block.shape[1], block.shape[1])
            self._sum.addmm_(block.T, block)
            self._count += BLOCK
        rest = self._buffer.rows(self._count)[:, index.to(self._buffer.device)].to(system)
        system.addmm_(rest.T, rest)
        if self._sum is not None:
            system += self._sum[index[:, None], index]
