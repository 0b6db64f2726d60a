"""The record of one edit, with which it can be saved, applied again and taken back."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open

from ..errors import StateError
from ..utils.io import save_tensors
from ..utils.plain_trees import parse_json
from ..utils.schema import damage_is, mismatch

FORMAT = 3
Factors = tuple[torch.Tensor, torch.Tensor]
"""Values [d_model, n] and keys [d_ff, n] of a change ``values keys^T``."""


def add_factors(*parts: Factors) -> Factors:
    """The sum of changes, in at most d_model columns."""
    values, keys = (torch.cat(factors, 1) for factors in zip(*parts))
    if keys.shape[1] <= len(values):
        return values, keys
    return torch.eye(len(values), dtype=values.dtype, device=values.device), keys @ values.T


@dataclass(frozen=True)
class LayerDelta:
    """The change of one layer's down_proj in factors: ``W += value_factor @ key_factor.T``.

    Attributes:
        value_factor: [d_model, n] float32.
        key_factor: [d_ff, n] float32; rows outside the mask are zero.
        mask: bool [d_ff], or None where all neurons may change.
        density: share of neurons that may change.
        leakage: ``tr(D C D^T) / (||D||^2 tr C)``; None without a covariance.
        residual_share: share of the residual that reached the keys, ``<D K, R> / <R, R>``.
        mask_info: sizes and thresholds of the mask.
        keys: [d_ff, n], keys that later edits protect (``SequentialState.append_edit``), or None.
        own: with error compensation, the edit's own change without a mask and without what earlier masks cut
            off; else None.
    """

    value_factor: torch.Tensor
    key_factor: torch.Tensor
    mask: torch.Tensor | None = None
    density: float = 1.0
    leakage: float | None = None
    residual_share: float | None = None
    mask_info: dict[str, Any] = field(default_factory=dict)
    keys: torch.Tensor | None = None
    own: Factors | None = None

    @property
    def cut_off(self) -> Factors | None:
        """``own - written``: what a mask has taken off, less what the edit has written of earlier ones."""
        return None if self.own is None else add_factors(self.own, (-self.value_factor, self.key_factor))

    @property
    def shape(self) -> tuple[int, int]:
        """(d_model, d_ff)."""
        return len(self.value_factor), len(self.key_factor)

    def matrix(self) -> torch.Tensor:
        """The delta itself, [d_model, d_ff] float32."""
        return self.value_factor @ self.key_factor.T

    @property
    def neurons(self) -> torch.Tensor:
        """int64, the neurons whose vectors change, ascending."""
        return self.key_factor.any(1).nonzero().squeeze(1).cpu()

    def negated(self) -> "LayerDelta":
        """The inverse change; its matrix is the negative of this one's, bit for bit."""
        return dataclasses.replace(self, value_factor=-self.value_factor)

    def to(self, device: torch.device) -> "LayerDelta":
        """The same with its factors on a device."""
        value_factor, key_factor = self.value_factor.to(device), self.key_factor.to(device)
        own = None if self.own is None else (self.own[0].to(device), self.own[1].to(device))
        return dataclasses.replace(self, value_factor=value_factor, key_factor=key_factor, own=own)

    def to_json(self) -> dict[str, Any]:
        """Everything but the tensors, as plain JSON values."""
        return {
            "density": self.density,
            "leakage": self.leakage,
            "delivered": self.residual_share,
            "rank": self.value_factor.shape[1],
            "mask": self.mask_info,
        }

    @classmethod
    def from_json(cls, plain: dict[str, Any], tensors: dict[str, torch.Tensor], layer: str) -> "LayerDelta":
        """The change of a layer, from ``to_json`` and the tensors of a saved record."""
        own = tensors.get(f"{layer}.own_left"), tensors.get(f"{layer}.own_right")
        left, right = tensors[f"{layer}.left"], tensors[f"{layer}.right"]
        if (
            left.dim() != 2
            or right.dim() != 2
            or left.shape[1] != right.shape[1]
            or left.dtype != right.dtype
        ):
            shapes = " and ".join(f"{part.dtype} {list(part.shape)}" for part in (left, right))
            raise StateError(f"layer {layer}: the factors {shapes} have no product")
        return cls(
            tensors[f"{layer}.left"],
            tensors[f"{layer}.right"],
            tensors.get(f"{layer}.mask"),
            plain["density"],
            plain["leakage"],
            plain["delivered"],
            plain["mask"],
            tensors.get(f"{layer}.keys"),
            None if own[0] is None or own[1] is None else (own[0], own[1]),
        )


def leakage(value_factor: torch.Tensor, key_factor: torch.Tensor, covariance: torch.Tensor) -> float:
    """``tr(D C D^T) / (|D|^2 tr C)`` of ``D = value_factor key_factor^T``; 1 / d_ff for a random
    direction."""
    gram, trace = value_factor.T @ value_factor, covariance.diagonal().sum().to(key_factor)
    rows = key_factor.any(1)
    if 2 * int(rows.sum()) < len(rows):  # a mask's rows: only they are read
        index = rows.to(covariance.device).nonzero().squeeze(1)
        key_factor, covariance = key_factor[rows], covariance[index[:, None], index]
    energy = ((key_factor.T @ (covariance.to(key_factor) @ key_factor)) * gram).sum()
    norm = ((key_factor.T @ key_factor) * gram).sum() * trace
    return float(energy / norm) if float(norm) > 0 else 0.0


@dataclass(frozen=True)
class UnitDelta:
    """The change of single rows or columns of one parameter ``W [d_out, d_in]`` (``ModelView.matrix``; a bias
    is ``[d_out, 1]``).

    Attributes:
        units: int64 [n], numbers of the rows (``axis: output``) or columns (``input``), ascending, each once;
            the indices themselves where ``parts`` is 1, else see ``unit_places``.
        vectors: [n, d] float32, added to them; d is d_in for rows, d_out for columns.
        axis: ``output`` or ``input``.
        shape: (d_out, d_in).
        info: a method's own report, as plain JSON values.
        parts: number of projections of the FFN's neurons that lie one behind the other in the rows
            (``arch.widen.row_parts``); 1 for columns and for most parameters.
    """

    units: torch.Tensor
    vectors: torch.Tensor
    axis: Literal["output", "input"]
    shape: tuple[int, int]
    info: dict[str, Any] = field(default_factory=dict)
    parts: int = 1

    def __post_init__(self) -> None:
        length = self.shape[1 if self.axis == "output" else 0]
        side = self.side
        ascending = bool((self.units[1:] > self.units[:-1]).all()) if len(self.units) else True
        inside = not len(self.units) or (int(self.units[0]) >= 0 and int(self.units[-1]) < side)
        if tuple(self.vectors.shape) != (len(self.units), length) or not ascending or not inside:
            raise StateError(
                f"unit delta: expected ascending indices below {side} and vectors of length {length}, got "
                f"{len(self.units)} indices and vectors {list(self.vectors.shape)}"
            )
        if self.parts < 1 or side % self.parts:
            raise StateError(f"unit delta: {side} rows are not {self.parts} equal parts")

    @property
    def side(self) -> int:
        """Number of the parameter's rows (``output``) or columns (``input``)."""
        return self.shape[0 if self.axis == "output" else 1]

    @property
    def adds(self) -> bool:
        """Whether the units are neurons that the edit has added to the model."""
        return bool(self.info.get("added"))

    @property
    def density(self) -> float:
        """Share of the parameter's rows or columns that changes."""
        return len(self.units) / self.side

    @property
    def neurons(self) -> torch.Tensor:
        """``units``, as ``LayerDelta.neurons``."""
        return self.units.cpu()

    def negated(self) -> "UnitDelta":
        """The inverse change."""
        return dataclasses.replace(self, vectors=-self.vectors)

    def to(self, device: torch.device) -> "UnitDelta":
        """The same with its tensors on a device."""
        return dataclasses.replace(self, units=self.units.to(device), vectors=self.vectors.to(device))

    def matrix(self) -> torch.Tensor:
        """The delta itself, [d_out, d_in]."""
        whole, places = self.vectors.new_zeros(self.shape), unit_places(self.units, self.parts, self.side)
        if self.axis == "output":
            whole[places] = self.vectors
        else:
            whole[:, places] = self.vectors.T
        return whole

    def to_json(self) -> dict[str, Any]:
        """Everything but the vectors, as plain JSON values."""
        return {
            "axis": self.axis,
            "shape": list(self.shape),
            "units": self.units.tolist(),
            "density": self.density,
            "info": self.info,
            "parts": self.parts,
        }

    @classmethod
    def from_json(cls, plain: dict[str, Any], vectors: torch.Tensor) -> "UnitDelta":
        """The change that ``to_json`` and the vectors describe."""
        units = torch.tensor(plain["units"], dtype=torch.int64)
        shape, parts = tuple(plain["shape"]), plain.get("parts", 1)
        return cls(units, vectors, plain["axis"], shape, plain["info"], parts)


def unit_places(units: torch.Tensor, parts: int, size: int) -> torch.Tensor:
    """Rows that a ``UnitDelta`` numbers ``units``, in a parameter that has ``size`` of them.

    Row ``i`` of part ``p`` has the number ``parts * i + p``, which stays when the parts grow at their ends.
    """
    return units % parts * (size // parts) + units // parts


def unit_numbers(places: torch.Tensor, parts: int, size: int) -> torch.Tensor:
    """The numbers that ``unit_places`` turns into these rows."""
    return unit_places(places, size // parts, size)


Delta = LayerDelta | UnitDelta
_WEIGHT = {"dtype": str, "shape": [int], "base": str, "before": str, "after": (None, str)}
_FORM = {"method": str, "hparams": {str: object}, "requests": [{str: object}], "contexts": [str]}
_FORM |= {
    "layers": {str: object},
    "names": {str: str},
    "units": {str: {"info": {str: object}, "parts?": int}},
}
_FORM |= {"fingerprint_before": str, "fingerprint_after": str, "seed": int, "info": {str: object}}
_FORM |= {"weights": {str: _WEIGHT}, "context_groups": [int], "metrics": {str: object}}
"""Form of a record's JSON, see ``utils.schema``."""


@dataclass
class EditRecord:
    """One call of an ``apply_*_to_model``.

    Attributes:
        method, hparams: name and all hyperparameters.
        requests: the edits, with EasyEdit's keys.
        contexts: context templates that were used; ``context_groups`` the sizes of their groups.
        layers: layer -> LayerDelta, the low-rank changes of down projections.
        names: layer -> name of the changed parameter.
        losses: loss curve per request (of z*, or of the trained vectors).
        probability: probability of the new object at the end of each curve.
        seconds: stage -> seconds.
        fingerprint_before, fingerprint_after: of the edited weights together.
        weights: parameter name -> {"dtype", "shape" (as stored in the model), "base", "before", "after"}. The
            last three are its fingerprints (``tensors_fingerprint``) before its first edit, before and after
            this edit. ``Edit.commit`` fills it.
        seed: seed of the method.
        units: parameter name -> UnitDelta, the changes of single rows and columns.
        info: what else a method reports, as plain JSON values.
        metrics: measured quality of the edit. Runs of the command store {"rewrite_acc": [..], ...} per
            request, right after it.
    """

    method: str
    hparams: dict[str, Any]
    requests: list[dict[str, Any]]
    contexts: list[str]
    layers: dict[int, LayerDelta]
    names: dict[int, str]
    losses: list[list[float]]
    probability: list[float]
    seconds: dict[str, float]
    fingerprint_before: str
    fingerprint_after: str
    seed: int
    units: dict[str, UnitDelta] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, dict[str, Any]] = field(default_factory=dict)
    context_groups: list[int] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)

    @property
    def deltas(self) -> Mapping[str, Delta]:
        """All changes by parameter name."""
        return {**{self.names[layer]: delta for layer, delta in self.layers.items()}, **self.units}

    @property
    def made_in_chat(self) -> bool:
        """Whether the edit was made inside the chat template."""
        return bool(self.hparams.get("use_chat_template", False))

    @property
    def adds_neurons(self) -> bool:
        """Whether the edit has added neurons to the model."""
        return any(delta.adds for delta in self.units.values())

    def to_json(self) -> dict[str, Any]:
        """Everything but the tensors, as plain JSON values."""
        fields = (entry.name for entry in dataclasses.fields(self))
        plain = {name: getattr(self, name) for name in fields if name not in ("layers", "units")}
        plain["layers"] = {str(layer): delta.to_json() for layer, delta in self.layers.items()}
        plain["names"] = {str(layer): name for layer, name in self.names.items()}
        plain["units"] = {name: delta.to_json() for name, delta in self.units.items()}
        plain["format"] = FORMAT
        return json.loads(json.dumps(plain))

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, atomically: the tensors, and ``to_json`` in its metadata."""
        tensors = {}
        for layer, delta in self.layers.items():
            tensors[f"{layer}.left"], tensors[f"{layer}.right"] = delta.value_factor, delta.key_factor
            own_left, own_right = delta.own or (None, None)
            optional = {"mask": delta.mask, "keys": delta.keys, "own_left": own_left, "own_right": own_right}
            for name, value in optional.items():
                if value is not None:
                    # A clone: layers may share a mask, and safetensors refuses tensors that share memory.
                    tensors[f"{layer}.{name}"] = value.clone()
        tensors |= {f"units.{name}": delta.vectors for name, delta in self.units.items()}
        save_tensors(Path(path), tensors, {"record": json.dumps(self.to_json())})

    @classmethod
    def load(cls, path: str | Path) -> "EditRecord":
        """Read a file that ``save`` wrote.

        Raises:
            StateError: the file is no edit record, or one of another format.
        """
        try:
            with safe_open(path, "pt") as handle:
                plain = parse_json((handle.metadata() or {})["record"])
                # Clones are aligned in memory. Products of tensors that are not may be rounded differently.
                tensors = {name: handle.get_tensor(name).clone() for name in handle.keys()}  # noqa: SIM118
        except Exception as problem:
            raise StateError(f"{path}: not an edit record ({problem})") from problem
        if not isinstance(plain, dict) or plain.pop("format", None) != FORMAT:
            raise StateError(f"{path}: edit record of another format than {FORMAT}")
        damage = mismatch(plain, _FORM)
        if damage:
            raise StateError(f"{path}: not an edit record ({damage})")
        with damage_is(StateError, f"{path}: not an edit record"):
            try:
                return cls._of(plain, tensors)
            except StateError as problem:
                raise StateError(f"{path}: {problem}") from None

    @classmethod
    def _of(cls, plain: dict[str, Any], tensors: dict[str, torch.Tensor]) -> "EditRecord":
        """The record of ``to_json`` and its tensors."""
        for name, tensor in tensors.items():
            if not bool(torch.isfinite(tensor).all()):
                raise ValueError(f"{name} has numbers that are not finite")
            if not tensor.is_floating_point() and not name.endswith(".mask"):
                raise ValueError(f"{name} is {tensor.dtype}")
        plain["layers"] = {
            int(layer): LayerDelta.from_json(entry, tensors, layer)
            for layer, entry in plain["layers"].items()
        }
        plain["names"] = {int(layer): name for layer, name in plain["names"].items()}
        plain["units"] = {
            name: UnitDelta.from_json(entry, tensors[f"units.{name}"])
            for name, entry in plain["units"].items()
        }
        return cls(**plain)
