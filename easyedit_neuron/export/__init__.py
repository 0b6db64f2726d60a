"""Edits in forms that other tools read: a PEFT adapter, a sparse file of touched rows, a merged checkpoint,
GGUF.

All are made from a sequence of ``EditRecord`` objects, or a log of them (``editlog``), and the model that
these edits were made on. Every folder has a side file, ``easyedit_neuron.json``: kind, edits, fingerprints of
the base.
"""

from .adapter import export_peft
from .checkpoint import export_merged, import_edits
from .gguf import export_gguf
from .side_file import Exported, read_side_file
from .sizes import Size, size_table, sizes
from .sparse import apply_sparse, export_sparse

__all__ = ["Exported", "Size", "apply_sparse", "export_gguf", "export_merged", "export_peft", "export_sparse"]
__all__ += ["import_edits", "read_side_file", "size_table", "sizes"]
