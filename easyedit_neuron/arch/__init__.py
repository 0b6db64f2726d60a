"""What the package knows about model architectures: the table of module names, one view per model, one way to
hook."""

from .capture import Capture
from .norms import NormParameters, norm_parameters
from .projections import Projection, projection, projection_names
from .states import next_keys, prefix_before, take
from .table import ARCHITECTURES, Architecture
from .view import ModelView

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "Capture",
    "ModelView",
    "NormParameters",
    "next_keys",
    "norm_parameters",
    "Projection",
    "prefix_before",
    "projection",
    "projection_names",
    "take",
]
