"""Model architectures: the table of module names, one view per model, one place that sets hooks."""

from .capture import Capture, next_keys, prefix_before, take
from .norms import NormParameters, norm_parameters
from .projections import Projection, projection, projection_names
from .table import ARCHITECTURES, Architecture
from .view import ModelView

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "Capture",
    "ModelView",
    "NormParameters",
    "Projection",
    "next_keys",
    "norm_parameters",
    "prefix_before",
    "projection",
    "projection_names",
    "take",
]
