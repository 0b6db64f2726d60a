"""Which ``BaseEditor``: EasyEdit's where EasyEdit can be imported, else the built-in one; an argument or an
environment variable forces either."""

import logging
import os

from ..errors import HostError
from .loader import find_easyeditor, import_easyeditor

LOG = logging.getLogger(__name__)

HOST_VARIABLE = "EASYEDIT_NEURON_HOST"
HOSTS = ("auto", "builtin", "easyedit")


def resolve_base_editor(host: str | None = None) -> type:
    """The ``BaseEditor`` class to use: of the host "easyedit", "builtin" or "auto".

    ``None`` takes the environment variable ``EASYEDIT_NEURON_HOST``, and "auto" where that is unset. "auto"
    is EasyEdit's class when EasyEdit can be imported (this takes several seconds), else the built-in one.
    """
    host = host or os.environ.get(HOST_VARIABLE) or "auto"
    if host not in HOSTS:
        choices = ", ".join(HOSTS)
        place = f"argument host= or {HOST_VARIABLE}"
        raise HostError(f"host {host!r} is unknown; choose one of {choices} ({place})")
    if host == "easyedit":
        return import_easyeditor().BaseEditor
    if host == "auto":
        try:
            if find_easyeditor() is not None:
                return import_easyeditor().BaseEditor
        except HostError as error:
            LOG.warning("EasyEdit cannot be used, the built-in editor takes its place: %s", error)
    from .base_editor import BaseEditor

    return BaseEditor
