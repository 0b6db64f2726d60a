"""A growing store of key columns that can lose some again, and says which ones are still as they were."""

import torch

from ...errors import StateError


def require_finite(keys: torch.Tensor) -> None:
    """StateError if a key holds infinity or NaN."""
    if not bool(torch.isfinite(keys).all()):
        raise StateError("the keys are not finite: an earlier edit has broken the model; undo it")


class KeyBuffer:
    """Keys of earlier edits, one row of memory per key, so that an append costs O(d_ff n) and nothing is
    copied to read them.

    Attributes:
        version: changes whenever keys are taken away; appending leaves it as it is. See ``unchanged_since``.
    """

    def __init__(
        self, d_ff: int, device: torch.device | str | None = None, dtype: torch.dtype = torch.float32
    ):
        """An empty buffer of keys of length ``d_ff``; memory is taken with the first append."""
        self._rows = torch.empty(0, d_ff, device=device, dtype=dtype)
        self._count = 0
        self._cuts: list[int] = []  # per version: number of leading keys that the change left alone

    def __len__(self) -> int:
        return self._count

    @property
    def d_ff(self) -> int:
        """Length of a key."""
        return self._rows.shape[1]

    @property
    def device(self) -> torch.device:
        """Where the keys are."""
        return self._rows.device

    @property
    def version(self) -> int:
        """Number of times keys have been taken away."""
        return len(self._cuts)

    @property
    def held_bytes(self) -> int:
        """Bytes of memory, spare room included."""
        return self._rows.numel() * self._rows.element_size()

    def unchanged_since(self, version: int) -> int:
        """Number of leading keys that are the same as when ``version`` was the buffer's version."""
        return min(self._cuts[version:], default=self._count)

    def append(self, keys: torch.Tensor) -> None:
        """Adds keys [d_ff, n] behind the others, in the buffer's dtype and on its device.

        Raises:
            StateError: wrong shape, or not finite; nothing has been added then.
        """
        if keys.ndim != 2 or keys.shape[0] != self.d_ff:
            raise StateError(f"keys must be [{self.d_ff}, n], got {list(keys.shape)}")
        require_finite(keys)
        needed = self._count + keys.shape[1]
        if needed > len(self._rows):
            grown = self._rows.new_empty(max(needed, 2 * len(self._rows), 8), self.d_ff)
            grown[: self._count] = self._rows[: self._count]
            self._rows = grown
        self._rows[self._count : needed] = keys.detach().T
        self._count = needed

    def columns(self, start: int = 0, stop: int | None = None) -> torch.Tensor:
        """Keys ``start`` to ``stop`` as a view [d_ff, stop - start]; it is valid until the buffer changes."""
        return self.rows(start, stop).T

    def rows(self, start: int = 0, stop: int | None = None) -> torch.Tensor:
        """The same, one key a row [stop - start, d_ff], as they lie in memory."""
        return self._rows[start : self._count if stop is None else min(stop, self._count)]

    def truncate(self, count: int) -> None:
        """Keeps the first ``count`` keys; StateError if there are fewer."""
        if not 0 <= count <= self._count:
            raise StateError(f"cannot keep {count} of {self._count} keys")
        if count < self._count:
            self._count = count
            self._cuts.append(count)

    def remove(self, which: slice | torch.Tensor) -> None:
        """Takes single keys out (the keys of one undone edit); those behind them move up.

        Args:
            which: a slice, or a tensor of indices.

        Raises:
            StateError: an index outside the buffer; nothing has been removed then.
        """
        numbers = torch.arange(self._count)
        if isinstance(which, torch.Tensor):
            which = which.cpu()
            if which.dtype == torch.bool or bool(((which < 0) | (which >= self._count)).any()):
                raise StateError(
                    f"keys {which.tolist()} are not all numbers of one of the buffer's {self._count} keys"
                )
        gone = numbers[which]
        if not len(gone):
            return
        first = int(gone.min())
        kept = torch.ones(self._count, dtype=torch.bool)
        kept[gone] = False
        stay = kept[first:].nonzero().squeeze(1).to(self._rows.device) + first
        self._rows[first : first + len(stay)] = self._rows[stay]
        self._count = first + len(stay)
        self._cuts.append(first)

    def copy(self) -> "KeyBuffer":
        """An independent buffer with the same keys."""
        twin = KeyBuffer(self.d_ff, self._rows.device, self._rows.dtype)
        twin.append(self.columns())
        return twin

    def saved(self) -> dict:
        """Everything that matters, for ``restored``: tensors and plain values."""
        return {"keys": self.rows(), "cuts": list(self._cuts)}

    @classmethod
    def restored(cls, saved: dict) -> "KeyBuffer":
        """The buffer that was saved; its memory is the given tensor's."""
        buffer = cls(0)
        buffer._rows, buffer._cuts = saved["keys"], list(saved["cuts"])
        buffer._count = len(buffer._rows)
        return buffer
