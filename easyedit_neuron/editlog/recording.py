"""Writing a log while any host edits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from ..edits.record import EditRecord
from ..edits.session import listening
from ..errors import StateError
from ..utils.fingerprint import tensors_fingerprint
from .log import EditLog


@contextmanager
def recording(model: torch.nn.Module, folder: str | Path | EditLog) -> Iterator[EditLog]:
    """Every edit of ``model`` by a method of this package goes into a log, whoever calls it::

        editor = BaseEditor.from_hparams(hparams)        # EasyEdit's or the built-in one
        with recording(editor.model, "edits/norway") as log:
            editor.edit(prompts, target_new=..., subject=..., sequential_edit=True)

    Where a host puts earlier weights back (EasyEdit does after every edit that is not sequential) the log has
    a ``restore`` entry, in front of the next edit or at the end of the block. Edits of copies of the model
    are not recorded.

    Args:
        model: has the weights that the newest entry of the log left, or that its first edit shall find.
        folder: the log's folder, or a log.

    Raises:
        StateError: the model is not the one that the log is of. An edit whose record cannot be written is
            taken back, and the error is raised from the edit.
    """
    log = folder if isinstance(folder, EditLog) else EditLog(folder)
    _follow(log, _present(model, log))  # it may have been put back since

    def write(record: EditRecord) -> None:
        before = {name: about["before"] for name, about in record.weights.items()}
        _follow(log, _present(model, log, before))
        log.append(record)

    with listening(model, write):
        yield log
        _follow(log, _present(model, log))


def _present(model: torch.nn.Module, log: EditLog, known: dict[str, str] | None = None) -> dict[str, str]:
    """Fingerprints of the parameters that the log has edited, those that are known taken from there."""
    known, names = known or {}, log.base.weights
    for name in names:
        if not any(name == present for present, _ in model.named_parameters()):
            raise StateError(f"{log.folder} is the log of another model: this one has no parameter {name!r}")
    return {
        name: known.get(name) or tensors_fingerprint([(name, model.get_parameter(name))]) for name in names
    }


def _follow(log: EditLog, present: dict[str, str]) -> None:
    """A ``restore`` entry, if the weights are no longer those of the newest entry but of an earlier one."""
    base, now = log.base.weights, log.weights_at()
    if present == now:
        return
    at = {name: about["fingerprint"] for name, about in base.items()}
    found = 0 if at == present else None
    for line in log.entries:
        at |= {name: about["after"] for name, about in line["weights"].items()}
        found = line["id"] if at == present else found
    if found is None:
        raise StateError(
            f"{log.folder}: the weights are not those of entry {len(log.entries)}, nor of an earlier one: they were "
            "changed from outside, or the model is another; put the right ones back, or begin another log"
        )
    log.note("restore", {name: value for name, value in present.items() if value != now[name]}, to=found)
