"""The edits of a model as objects: kept in a log, taken back one by one, made again on the base model,
compared, merged.

A log is a folder::

    log.json                 format, name of the base model, fingerprint of all its weights where it is known
    entries.jsonl            one line per entry, see below
    000001.safetensors       the EditRecord of entry 1 (an undo has no file)

    {"id": 1, "type": "edit", "file": "000001.safetensors", "bytes": .., "sha256": "..", "content": "..",
    "method": "NMKE",
     "requests": [..], "changes": {parameter: {"rank" or "units": .., "neurons": .., "norm": ..}}, "metrics":
     {..}, "run": {..}, "weights": {parameter: {"dtype", "shape", "before", "after"}}, "previous": "..",
     "hash": ".."}
    {"id": 2, "type": "undo", "of": 1, "weights": {..}, "previous": "..", "hash": ".."}

Other types: ``redo`` (``of``: an edit that had been taken back) and ``restore`` (``to``: the weights are
    again those after that
entry, 0: those of the base model; a host that makes each edit on the unedited model does so). ``hash`` is of
    the line's other
fields, ``previous`` the hash of the line before (of log.json for the first), ``sha256`` of the file,
``content`` of what makes the edit (tensors, method and requests; not times), the same in two logs of the same
edit.
"""

from .compare import Difference, diff
from .log import Base, EditLog
from .recording import recording
from .replaying import Replayed, replay
from .squashing import squash
from .undoing import redo, undo

__all__ = [
    "Base",
    "Difference",
    "EditLog",
    "Replayed",
    "diff",
    "recording",
    "redo",
    "replay",
    "squash",
    "undo",
]
