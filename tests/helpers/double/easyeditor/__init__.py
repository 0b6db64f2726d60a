"""A double of EasyEdit (14cea82), written from what it does: registry, loading by words, order of calls,
restore. No methods of its own."""

from .editors import BaseEditor
from .util import HyperParams

__all__ = ["BaseEditor", "HyperParams"]
