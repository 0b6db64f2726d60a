"""The saved state of a run: tensors in safetensors, the rest in JSON, replaced as a whole.

``state/0007/`` holds ``tensors.safetensors`` and ``state.json``. A state is written into a folder of another
name, synchronised and renamed; only then is the state before it removed. Whenever the process ends, a
complete state is there (or none yet).
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ..errors import StateError
from ..utils.fingerprint import key_fingerprint, tensors_fingerprint
from ..utils.io import remove_folder, write_folder
from ..utils.plain_trees import read_json
from ..utils.schema import mismatch
from ..utils.tensor_tree import pack, unpack

FORMAT = 5
TENSORS, PLAIN = "tensors.safetensors", "state.json"


class StateFolder:
    """The saved states of one run, below ``state``; ``run`` is the run's fingerprint, ``form`` what a state
    is (see ``utils.schema``)."""

    def __init__(self, folder: Path, run: str, form: Any = object):
        self.folder, self.run, self.form = folder, run, form

    def save(self, tree: dict[str, Any]) -> None:
        """Write a state, then remove the earlier ones; ``StateError`` if the disk is full, for example."""
        tensors, plan = pack(tree)
        tensors = {name: tensor.cpu() for name, tensor in tensors.items()}
        fingerprint = tensors_fingerprint(tensors.items())
        content = {"format": FORMAT, "run": self.run, "fingerprint": fingerprint, "tree": plan}
        content["digest"] = _digest(content)
        earlier = self._complete_states()

        def fill(part: Path) -> None:
            save_file(tensors, part / TENSORS)
            (part / PLAIN).write_text(json.dumps(content), encoding="utf-8")

        number = int(earlier[-1].name) + 1 if earlier else 1
        write_folder(self.folder / f"{number:04d}", fill)
        for folder in earlier:
            remove_folder(folder)

    def load(self) -> dict[str, Any] | None:
        """The newest state, if any; ``StateError`` if it is damaged, or of another run or format."""
        states = self._complete_states()
        if not states:
            return None
        folder = states[-1]
        remedy = f"Put the right one back, or remove {folder} to begin anew; run=NAME begins another run"
        try:
            content = read_json(folder / PLAIN)
            with safe_open(folder / TENSORS, "pt") as handle:
                tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 not a dict
            fingerprint = tensors_fingerprint(sorted(tensors.items(), key=_packing_order))
            problem = self._problem(content, fingerprint)
            tree = None if problem else unpack(tensors, content["tree"])
            problem = problem or mismatch(tree, self.form)
        except Exception as error:
            problem = f"not a readable state ({type(error).__name__}: {error})"
        if problem is not None:
            raise StateError(f"{folder}: {problem}. {remedy}")
        return tree

    def _problem(self, content: dict[str, Any], fingerprint: str) -> str | None:
        if content["format"] != FORMAT:
            return f"a state of format {content['format']}, this version reads {FORMAT}"
        if content["run"] != self.run:
            return f"the state of another run ({content['run']}; this one is {self.run})"
        if content["fingerprint"] != fingerprint:
            return f"{TENSORS} is damaged: its fingerprint is {fingerprint}, not {content['fingerprint']}"
        if content["digest"] != _digest(content):
            return f"{PLAIN} is damaged: its numbers have changed since it was written"
        return None

    def remove(self) -> None:
        remove_folder(self.folder)

    def _complete_states(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        return sorted(path for path in self.folder.iterdir() if path.name.isdecimal())


def _digest(content: dict[str, Any]) -> str:
    """Fingerprint of everything else in ``state.json``, which has the fingerprint of the tensors."""
    return key_fingerprint({name: value for name, value in content.items() if name != "digest"})


def _packing_order(item: tuple[str, torch.Tensor]) -> int:
    return int("".join(filter(str.isdigit, item[0])) or 0)
