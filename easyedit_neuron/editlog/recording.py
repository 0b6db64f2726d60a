"""Write a log while any host edits."""

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
    """Log every edit of ``model`` by a method of this package, whichever code makes it::

        editor = BaseEditor.from_hparams(hparams)        # EasyEdit's or the built-in one
        with recording(editor.model, "edits/norway") as log:
            editor.edit(prompts, target_new=..., subject=..., sequential_edit=True)

    A host may put earlier weights back (EasyEdit does after every edit that is not sequential). The log then
    has a ``restore`` entry before the next edit or at the end of the block. Edits of copies of the model are
    not logged. ``StateError`` where the model is not the log's. An edit whose record cannot be written is
    taken back, and the error is raised from the edit.
    """
    log = folder if isinstance(folder, EditLog) else EditLog(folder)

    def write(record: EditRecord) -> None:
        before = {name: weight["before"] for name, weight in record.weights.items()}
        _note_restored_weights(log, model, before)
        log.append(record)

    _note_restored_weights(log, model, {})
    with listening(model, write):
        yield log
        _note_restored_weights(log, model, {})


def _note_restored_weights(log: EditLog, model: torch.nn.Module, before: dict[str, str]) -> None:
    """Append a ``restore`` entry if the weights are those of an earlier entry.

    ``before``: fingerprints just before an edit that is already written; the others are computed.
    """
    parameters = dict(model.named_parameters())
    base, newest, present = log.weights_at(0), log.weights_at(), {}
    for name in base:
        if name not in parameters:
            raise StateError(f"{log.folder} is the log of another model: this one has no parameter {name!r}")
        present[name] = before.get(name) or tensors_fingerprint([(name, parameters[name])])
    if present == newest:
        return
    # Find the last entry after which the weights were the present ones; 0 is the base.
    weights, restored = base, 0 if base == present else None
    for entry in log.entries:
        weights |= {name: weight["after"] for name, weight in entry["weights"].items()}
        restored = entry["id"] if weights == present else restored
    if restored is None:
        raise StateError(
            f"{log.folder}: the weights are not those of entry {len(log.entries)}, nor of an earlier one: "
            "they were changed from outside, or the model is another; put them back, or begin another log"
        )
    changed = {name: value for name, value in present.items() if value != newest[name]}
    log.append_event("restore", changed, to=restored)
