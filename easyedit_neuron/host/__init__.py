"""Hosts of the methods: EasyEdit, extended at run time, and a built-in editor with the same calls.

Importing this package loads neither torch nor EasyEdit.
"""

from .hparams import easyedit_function, load_hparams
from .loader import import_easyeditor
from .registration import register
from .resolve import HOST_VARIABLE, resolve_base_editor

__all__ = ["HOST_VARIABLE", "easyedit_function", "import_easyeditor"]
__all__ += ["load_hparams", "register", "resolve_base_editor"]
