"""Covariances and projections that a user already has, from EasyEdit's files or plain safetensors."""

from __future__ import annotations

from pathlib import Path

import torch

from ..errors import StatisticsError
from .nullspace import Subspace

_ASYMMETRY = 1e-3
"""Largest difference of a matrix to its transpose, relative to its largest number: sums in float32 are not
symmetric to the last bit."""
_EASYEDIT = ("mom2.mom2", "mom2.count")
"""Arrays of EasyEdit's running sum that are read: the sum of k k^T, and the number of tokens."""
_BETWEEN = 1e-2
"""How far eigenvalues of a projection may lie from 0 and 1; AlphaEdit's are products in float32."""


def covariance_file(template: str, layer: int, d_ff: int) -> torch.Tensor:
    """C of a layer ``[d_ff, d_ff]``, float32 or float64, on the CPU.

    Args:
        template: path of a file, with ``{}`` for the layer's number: EasyEdit's ``.npz`` (the sum of k k^T
            and the number of tokens, of which the mean is taken), or ``.safetensors`` with one matrix.
        layer: number of the layer.
        d_ff: number of neurons.

    Raises:
        StatisticsError: there is no such file; it is damaged; it holds no symmetric matrix of finite numbers
            of this size.
    """
    path = Path(template.replace("{}", str(layer))).expanduser()
    return _checked(_matrix(path), path, d_ff, "mom2_file")


def projection_file(file: str, place: int, layers: int, d_ff: int) -> Subspace:
    """The null space of one layer from AlphaEdit's ``null_space_project.pt``.

    Args:
        file: path of a tensor ``[layers, d_ff, d_ff]``, the projections of all edited layers.
        place: of the layer among them.
        layers: how many layers are edited.
        d_ff: number of neurons.

    Raises:
        StatisticsError: as ``covariance_file``; another number of layers; a matrix that is no projection.
    """
    path = Path(file).expanduser()
    stack = _loaded(path)
    if not isinstance(stack, torch.Tensor) or stack.dim() != 3 or len(stack) != layers:
        shape = list(stack.shape) if isinstance(stack, torch.Tensor) else type(stack).__name__
        raise StatisticsError(
            f"nullspace_file: {path} holds {shape}, not a tensor [{layers}, {d_ff}, {d_ff}] with the "
            "projections of the layers in 'layers', in their order"
        )
    values, vectors = torch.linalg.eigh(_checked(stack[place], path, d_ff, "nullspace_file"))
    inside = values > 0.5
    if bool(((values - inside.to(values.dtype)).abs() > _BETWEEN).any()):
        raise StatisticsError(f"nullspace_file: {path}, matrix {place}: is no projection onto a subspace")
    complement = 2 * int(inside.sum()) > len(inside)
    return Subspace(vectors[:, ~inside if complement else inside].contiguous(), complement)


def _matrix(path: Path) -> torch.Tensor | None:
    content = _loaded(path)
    if isinstance(content, dict) and set(content) == set(_EASYEDIT):
        count = float(content["mom2.count"])
        return content["mom2.mom2"] / count if count > 0 else None
    if isinstance(content, dict):
        return next(iter(content.values())) if len(content) == 1 else None
    return content


def _loaded(path: Path):
    """The content of a file; nothing in it is run."""
    if not path.is_file():
        raise StatisticsError(f"{path}: there is no such file")
    try:
        if path.suffix == ".npz":
            import numpy

            with numpy.load(path, allow_pickle=False) as arrays:
                return {name: torch.as_tensor(arrays[name]) for name in _EASYEDIT}
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as problem:  # whatever the formats' readers raise about files of others
        reason = " ".join(str(problem).split())[:200]
        raise StatisticsError(f"{path}: cannot be read ({reason})") from None


def _checked(matrix: torch.Tensor | None, path: Path, d_ff: int, field: str) -> torch.Tensor:
    is_matrix = isinstance(matrix, torch.Tensor) and tuple(matrix.shape) == (d_ff, d_ff)
    if not is_matrix or not matrix.is_floating_point():
        shape = list(matrix.shape) if isinstance(matrix, torch.Tensor) else "no single matrix"
        raise StatisticsError(f"{field}: {path} holds {shape} where [{d_ff}, {d_ff}] is expected")
    matrix = matrix.to(torch.promote_types(matrix.dtype, torch.float32))
    largest = float(matrix.abs().max())
    if not largest < float("inf"):
        raise StatisticsError(f"{field}: {path} holds numbers that are not finite")
    if float((matrix - matrix.T).abs().max()) > _ASYMMETRY * largest:
        raise StatisticsError(f"{field}: {path} holds a matrix that is not symmetric")
    return (matrix + matrix.T) / 2
