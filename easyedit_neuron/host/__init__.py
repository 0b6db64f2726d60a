"""Hosts of the methods: EasyEdit, extended at run time, and a built-in editor with the same calls.

- ``loader``: import EasyEdit for text models with six packages (``import_easyeditor``);
- ``registration``: make our methods known to EasyEdit, now or when it is imported (``register``);
- ``hparams``: the hyperparameters of a method by its name, for the editor in use (``load_hparams``);
- ``base_editor``: the built-in ``BaseEditor``.

Importing this package loads neither torch nor EasyEdit.
"""

from .hparams import easyedit_function, load_hparams
from .loader import import_easyeditor
from .registration import register
from .resolve import HOST_VARIABLE, resolve_base_editor

__all__ = [
    "HOST_VARIABLE",
    "easyedit_function",
    "import_easyeditor",
    "load_hparams",
    "register",
    "resolve_base_editor",
]
