"""Which ``BaseEditor``: EasyEdit's when EasyEdit is there, else the built-in one; an argument or a variable
forces either."""

import logging
import os

from ..errors import HostError
from .loader import find_easyeditor, import_easyeditor

LOG = logging.getLogger(__name__)

HOST_VARIABLE = "EASYEDIT_NEURON_HOST"
HOSTS = ("auto", "builtin", "easyedit")


def resolve_base_editor(host: str | None = None) -> type:
    """The ``BaseEditor`` class to use.

    Args:
        host: "easyedit", "builtin" or "auto"; ``None`` takes the environment variable
            ``EASYEDIT_NEURON_HOST``, and "auto" where that is unset. "auto" is EasyEdit's class when EasyEdit
            can be imported (this takes several seconds), else the built-in one.

    Raises:
        HostError: an unknown host, or "easyedit" where EasyEdit cannot be used.
    """
    chosen = host or os.environ.get(HOST_VARIABLE) or "auto"
    if chosen not in HOSTS:
        raise HostError(
            f"host {chosen!r} is unknown; choose one of {', '.join(HOSTS)} (argument host= or {HOST_VARIABLE})"
        )
    if chosen == "easyedit" or (chosen == "auto" and _easyedit_is_there()):
        try:
            return import_easyeditor().BaseEditor
        except HostError as error:
            if chosen == "easyedit":
                raise
            LOG.warning(
                "EasyEdit is there but cannot be used, the built-in editor takes its place: %s", error
            )
    from .base_editor import BaseEditor

    return BaseEditor


def _easyedit_is_there() -> bool:
    try:
        return find_easyeditor() is not None
    except HostError as error:
        LOG.warning("%s", error)
        return False
