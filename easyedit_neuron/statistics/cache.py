"""Statistics on disk and in memory, under a key that hashes everything they depend on."""

from __future__ import annotations

import copy
import logging
import random
import weakref
from functools import cached_property
from itertools import islice
from pathlib import Path

import torch

from ..arch.tokens import token_ids
from ..arch.view import ModelView
from ..arch.widen import own_width
from ..errors import StateError, StatisticsError
from ..utils.fingerprint import (
    key_fingerprint,
    model_fingerprint,
    tensors_fingerprint,
    text_fingerprint,
    tokenizer_fingerprint,
)
from ..utils.io import remove_stale_parts
from . import matrix_files
from .covariance import covariances
from .given import covariance_file, projection_file
from .memory_use import to_device_or_host
from .names import name_keys, names_in, read_names
from .nullspace import Subspace, null_space
from .text import Texts, enough_texts, open_texts

LOG = logging.getLogger(__name__)
DTYPES = {"float32": torch.float32, "float64": torch.float64}
_TOKENIZER_SAMPLE = 32


class Statistics:
    """Covariances and null spaces of one model, computed when they are first asked for.

    The key of a cache file hashes weights and buffers, tokenizer, text, layer, module, piece length and
    dtype, and the threshold of a null space. Files are written atomically, and a file whose stored key
    differs from its name's is refused. A measurement under way saves its sums in a ``.partial`` file and
    continues from there after an interruption. The model is held by a weak reference.

    Args:
        view, tok, hparams: model, tokenizer, ``PathHyperParams``.
    """

    def __init__(self, view: ModelView, tok, hparams):
        self._model, self._arch = weakref.ref(view.model), view.arch
        self.tok = tok
        self.layers = list(hparams.layers)
        self._dtype, self.dtype = hparams.mom2_dtype, DTYPES[hparams.mom2_dtype]
        positions = getattr(view.config, "max_position_embeddings", None) or hparams.mom2_max_length
        self.max_length = min(hparams.mom2_max_length, positions)
        self.dir = Path(hparams.stats_dir).expanduser()
        remove_stale_parts(self.dir)
        n_texts = hparams.mom2_n_samples or enough_texts(own_width(view))
        self._source = hparams.mom2_dataset, n_texts, hparams.seed, self.dir
        self._cut = hparams.mom2_cut
        self._name_share, self._name_file = hparams.mom2_name_share, hparams.mom2_names
        self._covariance_file, self._projection_file = hparams.mom2_file, hparams.nullspace_file
        self._covariance: dict[int, torch.Tensor] = {}
        self._null: dict[tuple[int, float], Subspace] = {}
        self._samples: dict[int, list[list[int]]] = {}

    @property
    def view(self) -> ModelView:
        """View of the model; ``StateError`` if the model no longer exists."""
        model = self._model()
        if model is None:
            raise StateError("the model that these statistics belong to no longer exists; make new ones")
        return ModelView(model, self._arch)

    @cached_property
    def _texts(self) -> Texts:
        return open_texts(self.view, self.tok, *self._source)

    @cached_property
    def names(self) -> list[str]:
        """Names in the text, or those of ``mom2_names``."""
        return names_in(self._texts) if self._name_file is None else read_names(Path(self._name_file))

    @cached_property
    def _common_provenance(self) -> dict:
        # Computed at the first use, so of the weights as they are then.
        texts = list(islice(self._texts, _TOKENIZER_SAMPLE))
        return {
            "model": model_fingerprint(self.view.model),
            "text": self._texts.fingerprint,
            "tokenizer": tokenizer_fingerprint(self.tok, texts, _TOKENIZER_SAMPLE),
            "max_length": self.max_length,
            "dtype": self._dtype,
        } | ({"cut": True} if self._cut else {})

    def of_copy(self, model: torch.nn.Module) -> Statistics:
        """These statistics for a deep copy of the model; matrices are shared."""
        twin = copy.copy(self)
        twin._model = weakref.ref(model)
        return twin

    def held(self) -> dict:
        """Names of the matrices in memory, and fingerprints of those that the user gave, for ``hold``."""
        names = {"covariance": sorted(self._covariance), "nullspace": [list(key) for key in self._null]}
        return names | ({"given": self._given()} if self._covariance_file or self._projection_file else {})

    def _given(self) -> dict[str, str]:
        """Fingerprints of the matrices in memory that are the user's."""
        given: dict[str, torch.Tensor] = {}
        if self._covariance_file:
            given |= {f"covariance {layer}": matrix for layer, matrix in self._covariance.items()}
        if self._projection_file:
            given |= {f"nullspace {layer}": space.basis for (layer, _), space in self._null.items()}
        return {name: tensors_fingerprint([("", matrix)]) for name, matrix in sorted(given.items())}

    def hold(self, held: dict) -> None:
        """Load or measure what another process's ``held`` names."""
        for layer in held["covariance"]:
            self.covariance(layer)
        for layer, threshold in held["nullspace"]:
            self.null_space(layer, threshold)
        if held.get("given", {}) != self._given():
            raise StateError(
                "mom2_file or nullspace_file hold other numbers than when the edits so far were made; put "
                "those files back"
            )

    def ready(self) -> None:
        """Load every layer's covariance, or measure it on the present weights if there is no file."""
        for layer in self.layers:
            self.covariance(layer)

    def covariance(self, layer: int) -> torch.Tensor:
        """C of a layer ``[d_ff, d_ff]``, float32 or float64; layers without a file are measured together.

        It is that of the text's tokens; ``mom2_name_share`` of it that of the last tokens of names in the
        text. The matrix is on the device of the layer's weight, or in host memory if that is full.

        Raises:
            StateError: the layer is not among ``layers``; a file is damaged or foreign.
            DataError: something is wrong with the text; raised before anything is measured.
        """
        if layer not in self._covariance:
            view = self.view
            if layer not in self.layers:
                raise StateError(f"layer {layer} is not among the layers {self.layers} of these statistics")
            if self._covariance_file:
                matrix = covariance_file(self._covariance_file, layer, own_width(view))
                matrix = to_device_or_host(matrix, view.device_of(layer), f"covariance of layer {layer}")
            else:
                matrix = self._measured("covariance", layer, view)
            if self._name_share:
                names = self._measured("names", layer, view)
                matrix = torch.lerp(matrix, names.to(matrix), self._name_share)
            self._covariance[layer] = matrix
        return self._covariance[layer]

    def _measured(self, kind: str, layer: int, view: ModelView) -> torch.Tensor:
        """A matrix from its file; without one it is measured, with those of the other layers."""
        provenance = self._provenance(kind, layer, view)
        tensors = self._read(provenance, view)
        if tensors is None:
            (self._measure if kind == "covariance" else self._measure_names)(view)
            tensors = self._read(provenance, view)
        assert tensors is not None
        return tensors["covariance"]

    def null_space(self, layer: int, threshold: float) -> Subspace:
        """Null space of C of a layer: eigenvectors with an eigenvalue below ``threshold``."""
        key = (layer, threshold)
        if key not in self._null and (self._projection_file or self._covariance_file):
            self._null[key] = self._given_null_space(layer, threshold)
        if key not in self._null:
            view = self.view
            provenance = self._provenance("nullspace", layer, view) | {"threshold": threshold}
            if self._name_share:
                provenance |= {"name_share": self._name_share, "names": text_fingerprint(self.names)}
            tensors = self._read(provenance, view)
            if tensors is None:
                space = null_space(self.covariance(layer), threshold)
                tensors = {"basis": space.basis, "complement": torch.tensor(space.complement)}
                matrix_files.write(self._path(provenance), provenance, tensors)
            else:
                space = Subspace(tensors["basis"], bool(tensors["complement"]))
            LOG.info("layer %d: null space of dimension %d of %d", layer, space.dim, own_width(view))
            self._null[key] = space
        return self._null[key]

    def _given_null_space(self, layer: int, threshold: float) -> Subspace:
        if not self._projection_file:
            return null_space(self.covariance(layer), threshold)
        place, d_ff = self.layers.index(layer), own_width(self.view)
        space = projection_file(self._projection_file, place, len(self.layers), d_ff)
        basis = to_device_or_host(space.basis, self.view.device_of(layer), f"null space of layer {layer}")
        return Subspace(basis, space.complement)

    def sample(self, tokens: int) -> list[list[int]]:
        """Token rows of randomly drawn texts, ``tokens`` in all if the source has so many.

        The draw depends on the seed alone, so every call gives the same rows.
        """
        if tokens not in self._samples:
            texts, rows, left = self._texts, [], tokens
            order = random.Random(self._source[2]).sample(range(len(texts)), min(len(texts), tokens))
            numbers = set(order)
            drawn = {number: text for number, text in enumerate(texts) if number in numbers}
            for number in order:
                row = token_ids(self.tok, drawn[number])[: min(left, self.max_length)]
                rows, left = rows + [row] if row else rows, left - len(row)
                if not left:
                    break
            self._samples[tokens] = rows
        return self._samples[tokens]

    def _measure(self, view: ModelView) -> None:
        provenances = {layer: self._provenance("covariance", layer, view) for layer in self.layers}
        missing = [layer for layer in self.layers if not self._path(provenances[layer]).is_file()]
        modules = [view.down_weight_name(layer) for layer in missing]
        together = self._common_provenance | {"kind": "covariance", "layers": missing, "modules": modules}
        name = f"covariance-layers{missing[0]}-{missing[-1]}-{key_fingerprint(together)}.partial"
        unfinished = matrix_files.UnfinishedSums(self.dir / name, together)
        with matrix_files.writing(self.dir):
            self.dir.mkdir(parents=True, exist_ok=True)  # fails now and not after the measurement
        LOG.info("measuring the covariance of layers %s on %d texts", missing, len(self._texts))
        measured = covariances(
            *(view, self.tok, self._texts, missing, self.max_length, self.dtype),
            unfinished=unfinished,
            cut=self._cut,
        )
        for layer, matrix in measured.items():
            matrix_files.write(self._path(provenances[layer]), provenances[layer], {"covariance": matrix})
        unfinished.remove()

    def _measure_names(self, view: ModelView) -> None:
        for layer, keys in self.name_keys().items():
            provenance = self._provenance("names", layer, view)
            matrix_files.write(self._path(provenance), provenance, {"covariance": keys.T @ keys / len(keys)})

    def name_keys(self) -> dict[int, torch.Tensor]:
        """Layer -> keys [n, d_ff] of the names, on the present weights."""
        return name_keys(self.view, self.tok, self.names, self.layers, self.dtype)

    def _provenance(self, kind: str, layer: int, view: ModelView) -> dict:
        module = view.down_weight_name(layer)
        provenance = self._common_provenance | {"kind": kind, "layer": layer, "module": module}
        return provenance | {"names": text_fingerprint(self.names)} if kind == "names" else provenance

    def _path(self, provenance: dict) -> Path:
        kind, layer = provenance["kind"], provenance["layer"]
        return self.dir / f"{kind}-layer{layer}-{key_fingerprint(provenance)}.safetensors"

    def _read(self, provenance: dict, view: ModelView) -> dict[str, torch.Tensor] | None:
        content = matrix_files.read(self._path(provenance), provenance)
        if content is None:
            return None
        layer, kind = provenance["layer"], provenance["kind"]
        _check_matrices(content[0], kind, own_width(view), self._path(provenance))
        device, name = view.device_of(layer), f"{kind} of layer {layer}"
        return {key: to_device_or_host(tensor, device, name) for key, tensor in content[0].items()}


def _check_matrices(tensors: dict[str, torch.Tensor], kind: str, d_ff: int, path: Path) -> None:
    """``StatisticsError`` unless a file has what its kind has, in the model's size and finite."""
    name = "basis" if kind == "nullspace" else "covariance"
    matrix = tensors.get(name, torch.empty(0))
    fits = matrix.dim() == 2 and matrix.shape[0] == d_ff and matrix.is_floating_point()
    if name == "basis":
        fits = fits and matrix.shape[1] <= d_ff and tensors.get("complement", matrix).numel() == 1
    else:
        fits = fits and matrix.shape[1] == d_ff
    if not fits or not bool(torch.isfinite(matrix).all()):
        problem = f"{name!r} is no matrix of finite numbers for {d_ff} neurons"
        raise StatisticsError(f"{path}: {problem}; delete it to measure anew")
