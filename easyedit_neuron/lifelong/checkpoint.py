"""The state of a run on disk: tensors in safetensors, the rest in JSON, replaced as a whole.

``state/0007/`` holds ``tensors.safetensors`` and ``state.json``. A state is written into a folder of another
name, synchronised, renamed, and only
then is the one before it removed: whenever the process ends, a complete state is there (or none yet).
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ..errors import StateError
from ..utils.fingerprint import tensors_fingerprint
from ..utils.io import remove_folder, write_folder
from ..utils.tensor_tree import pack, unpack

FORMAT = 3
TENSORS, PLAIN = "tensors.safetensors", "state.json"


class StateFolder:
    """The states of one run.

    Args:
        folder: its ``state``; made with the first one.
        run: fingerprint of the run that the states belong to.
    """

    def __init__(self, folder: Path, run: str):
        self.folder, self.run = folder, run

    def save(self, tree: dict[str, Any]) -> None:
        """Writes a state, then removes the earlier ones.

        Raises:
            StateError: the disk is full, or refuses otherwise; the earlier state is still there.
        """
        tensors, plan = pack(tree)
        tensors = {name: tensor.cpu() for name, tensor in tensors.items()}
        content = {
            "format": FORMAT,
            "run": self.run,
            "fingerprint": tensors_fingerprint(tensors.items()),
            "tree": plan,
        }
        earlier = self._complete()

        def fill(part: Path) -> None:
            save_file(tensors, part / TENSORS)
            (part / PLAIN).write_text(json.dumps(content), encoding="utf-8")

        write_folder(self.folder / f"{self._number(earlier) + 1:04d}", fill)
        for folder in earlier:
            remove_folder(folder)

    def load(self) -> dict[str, Any] | None:
        """The newest state; None if there is none.

        Raises:
            StateError: it is damaged, of another run, or of another format. Nothing is changed.
        """
        complete = self._complete()
        if not complete:
            return None
        folder = complete[-1]
        try:
            content = json.loads((folder / PLAIN).read_text(encoding="utf-8"))
            with safe_open(folder / TENSORS, "pt") as handle:
                tensors = {name: handle.get_tensor(name) for name in handle.keys()}
            form, run, expected, plan = (content[name] for name in ("format", "run", "fingerprint", "tree"))
        except Exception as problem:
            raise StateError(
                f"{folder}: not a readable state ({type(problem).__name__}: {problem}). "
                f"{self._remedy(folder)}"
            ) from problem
        if form != FORMAT:
            raise StateError(
                f"{folder}: a state of format {form}, this version reads {FORMAT}. {self._remedy(folder)}"
            )
        if run != self.run:
            raise StateError(
                f"{folder}: the state of another run ({run}; this one is {self.run}). {self._remedy(folder)}"
            )
        found = tensors_fingerprint(sorted(tensors.items(), key=_order))
        if found != expected:
            raise StateError(
                f"{folder}: {TENSORS} is damaged: its fingerprint is {found}, written was {expected}. "
                f"{self._remedy(folder)}"
            )
        return unpack(tensors, plan)

    def remove(self) -> None:
        """Removes all states."""
        remove_folder(self.folder)

    def _complete(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        return sorted(path for path in self.folder.iterdir() if path.name.isdigit())

    @staticmethod
    def _number(folders: list[Path]) -> int:
        return int(folders[-1].name) if folders else 0

    def _remedy(self, folder: Path) -> str:
        return f"Put the right one back, or remove {folder} to begin anew; run=NAME begins another run"


def _order(item: tuple[str, torch.Tensor]) -> int:
    """Tensors in the order in which they were packed."""
    return int("".join(filter(str.isdigit, item[0])) or 0)


def seed_everything(seed: int) -> None:
    """The global random generators; methods with a seed of their own do not use them."""
    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def random_states() -> dict[str, Any]:
    """The global random generators of Python, numpy and torch."""
    version, internal, gauss = random.getstate()
    name, keys, position, has_gauss, cached = numpy.random.get_state()
    return {
        "python": [version, list(internal), gauss],
        "numpy": [str(name), keys.tolist(), int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_states(saved: dict[str, Any]) -> None:
    """The generators as ``random_states`` found them."""
    version, internal, gauss = saved["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = saved["numpy"]
    numpy.random.set_state((name, numpy.array(keys, dtype=numpy.uint32), position, has_gauss, cached))
    torch.set_rng_state(saved["torch"])
    if saved["cuda"]:
        torch.cuda.set_rng_state_all(saved["cuda"])
