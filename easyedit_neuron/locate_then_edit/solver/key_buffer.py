"""Keys of earlier edits: a growing store that can lose keys again, and the coordinates they are solved in."""

import torch

from ...errors import StateError
from ...statistics.nullspace import Subspace


def require_finite(keys: torch.Tensor) -> None:
    """StateError if a key holds infinity or NaN."""
    if not bool(torch.isfinite(keys).all()):
        raise StateError("the keys are not finite: an earlier edit has broken the model; undo it")


class KeyBuffer:
    """Keys of earlier edits, one per row of memory: an append costs O(d_ff n), and reading copies nothing."""

    def __init__(
        self, d_ff: int, device: torch.device | str | None = None, dtype: torch.dtype = torch.float32
    ):
        """An empty buffer of keys of length ``d_ff``; the first append allocates memory."""
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
        """Device of the keys."""
        return self._rows.device

    @property
    def version(self) -> int:
        """Number of times keys have been taken away; see ``unchanged_since``."""
        return len(self._cuts)

    @property
    def held_bytes(self) -> int:
        """Bytes of memory, spare room included."""
        return self._rows.numel() * self._rows.element_size()

    def unchanged_since(self, version: int) -> int:
        """Number of leading keys that are the same as when ``version`` was the buffer's version."""
        return min(self._cuts[version:], default=self._count)

    def append(self, keys: torch.Tensor) -> None:
        """Add keys [d_ff, n] at the end, in the buffer's dtype and on its device.

        Raises:
            StateError: wrong shape, or not finite; nothing is added then.
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

    def columns(self) -> torch.Tensor:
        """All keys as a view [d_ff, m], valid until the buffer changes."""
        return self.rows().T

    def rows(self, start: int = 0, stop: int | None = None) -> torch.Tensor:
        """Keys ``start`` to ``stop`` as a view [stop - start, d_ff], valid until the buffer changes."""
        return self._rows[start : self._count if stop is None else min(stop, self._count)]

    def truncate(self, count: int) -> None:
        """Keep the first ``count`` keys; StateError if there are fewer."""
        if not 0 <= count <= self._count:
            raise StateError(f"cannot keep {count} of {self._count} keys")
        self.remove(count, self._count)

    def remove(self, start: int, stop: int) -> None:
        """Take out keys ``start`` to ``stop``, those of one undone edit; the keys behind them move up.

        Raises:
            StateError: the range is not inside the buffer; nothing is removed then.
        """
        if not 0 <= start <= stop <= self._count:
            raise StateError(f"cannot remove keys {start} to {stop} of {self._count}")
        if start == stop:
            return
        moved = self._rows[stop : self._count].clone()
        self._rows[start : start + len(moved)] = moved
        self._count = start + len(moved)
        self._cuts.append(start)

    def copy(self) -> "KeyBuffer":
        """An independent buffer with the same keys."""
        twin = KeyBuffer(self.d_ff, self._rows.device, self._rows.dtype)
        twin.append(self.columns())
        return twin

    def saved(self) -> dict:
        """Tensors and plain values for ``restored``."""
        return {"keys": self.rows(), "cuts": list(self._cuts)}

    @classmethod
    def restored(cls, saved: dict) -> "KeyBuffer":
        """The buffer that was saved; it uses the saved tensor's memory."""
        buffer = cls(0)
        buffer._rows, buffer._cuts = saved["keys"], list(saved["cuts"])
        buffer._count = len(buffer._rows)
        return buffer


class Coordinates:
    """Coordinates in which a system is solved.

    These are coefficients of the null space's basis, where the basis is thin. Where its complement is thin,
    or without a null space, they are key space, with keys projected into the null space.
    """

    def __init__(self, subspace: Subspace | None, d_ff: int, dtype: torch.dtype):
        self.basis = None if subspace is None else subspace.basis.to(dtype)
        self.thin = subspace is not None and not subspace.complement
        self.dim = self.basis.shape[1] if self.thin else d_ff

    def project(self, keys: torch.Tensor) -> torch.Tensor:
        """From key space [n, d_ff] to coordinates [n, dim]."""
        if self.basis is None:
            return keys
        coefficients = keys @ self.basis
        return coefficients if self.thin else keys - coefficients @ self.basis.T

    def to_key_space(self, vectors: torch.Tensor) -> torch.Tensor:
        """The transpose of ``project``: from coordinates [n, dim] to key space [n, d_ff]."""
        return vectors @ self.basis.T if self.thin else self.project(vectors)
