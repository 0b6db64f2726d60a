"""The edits of a model as objects: logged, undone one by one, replayed on the base model, compared, joined.

A log is a folder::

    log.json                 format, name of the base model, fingerprint of all its weights or null
    entries.jsonl            one line per entry, see below
    000001.safetensors       the EditRecord of entry 1 (an undo has no file)

    {"id": 1, "type": "edit", "file": "000001.safetensors", "bytes": .., "sha256": "..", "content": "..",
     "method": "NMKE", "requests": [..],
     "changes": {parameter: {"rank" or "units": .., "neurons": .., "norm": ..}}, "metrics": {..}, "run": {..},
     "weights": {parameter: {"dtype", "shape", "before", "after"}}}
    {"id": 2, "type": "undo", "of": 1, "weights": {..}}

``sha256`` is the digest of the file. ``content`` is a digest of what makes the edit (tensors, method and
requests, not times): the same in two logs of the same edit. Other types are ``redo`` (``of``: an edit that
had been undone) and ``restore``: the weights are again those after entry ``to`` (0: those of the base model).
A host that makes each edit on the unedited model restores them.
"""

from .compare import Difference, diff
from .log import Base, EditLog
from .recording import recording
from .replaying import Replayed, replay
from .squashing import squash
from .undoing import redo, undo

__all__ = ["Base", "Difference", "EditLog", "Replayed"]
__all__ += ["diff", "recording", "redo", "replay", "squash", "undo"]
