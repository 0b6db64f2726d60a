"""Hosts of the methods: EasyEdit, found and taught at run time, and a built-in editor with the same calls.

- :mod:`.loader`: import EasyEdit for text models with six packages (``import_easyeditor``);
- :mod:`.registration`: make our methods known to EasyEdit, now or when it is imported (``register``);
- :mod:`.base_editor`: the built-in ``BaseEditor``.

Importing this package loads neither torch nor EasyEdit.
"""
from .loader import import_easyeditor
from .registration import register
from .resolve import HOST_VARIABLE, resolve_base_editor

__all__ = ["HOST_VARIABLE", "import_easyeditor", "register", "resolve_base_editor"]
