"""Edits in the forms that others can use: a PEFT adapter, a sparse file of touched rows, a merged checkpoint.

All of them are made from a sequence of ``EditRecord`` s and the model that these were made on; a log
(``editlog``) is such a sequence. Every folder that is written has a side file, ``easyedit_neuron.json``:
kind, edits, fingerprints of the base.

- :func:`export_peft`: exact low-rank factors, or cut down by SVD with the error reported;
- :func:`export_sparse`, :func:`apply_sparse`: bit for bit in and out;
- :func:`export_merged`: ``save_pretrained``;
- :func:`import_edits`: an adapter or a sparse file on its base, as a checkpoint;
- :func:`sizes`: bytes of every form.
"""

from .adapter import export_peft
from .importing import import_edits
from .merged import export_merged
from .provenance import Exported, read_about
from .sizes import Size, size_table, sizes
from .sparse import apply_sparse, export_sparse

__all__ = [
    "Exported",
    "Size",
    "apply_sparse",
    "export_merged",
    "export_peft",
    "export_sparse",
    "import_edits",
    "read_about",
    "size_table",
    "sizes",
]
