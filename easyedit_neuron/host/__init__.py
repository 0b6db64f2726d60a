"""Hosts of the methods: EasyEdit, found and taught at run time, and a built-in editor with the same calls.

- :mod:`.loader`: import EasyEdit for text models with six packages (``import_easyeditor``);
- :mod:`.registration`: make our methods known to EasyEdit, now or when it is imported (``register``);
- :mod:`.hparams`: the hyperparameters of a method by its name, for the editor in use (``load_hparams``);
- :mod:`.base_editor`: the built-in ``BaseEditor``.

Importing this package loads neither torch nor EasyEdit.
"""

from .hparams import easyedits_own, load_hparams
from .loader import import_easyeditor
from .registration import register
from .resolve import HOST_VARIABLE, resolve_base_editor

__all__ = [
    "HOST_VARIABLE",
    "easyedits_own",
    "import_easyeditor",
    "load_hparams",
    "register",
    "resolve_base_editor",
]
