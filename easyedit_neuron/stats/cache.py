"""Statistics on disk and in memory, under a key that hashes everything they depend on."""

import copy
import json
import logging
import weakref
from pathlib import Path

import torch
from safetensors.torch import load_file

from ..arch.view import ModelView
from ..errors import StateError
from ..fingerprint import key_fingerprint, model_fingerprint, text_fingerprint, tokenizer_fingerprint
from ..tensorfile import save_tensors
from .covariance import covariances
from .nullspace import Subspace, null_space
from .text import load_texts

LOG = logging.getLogger(__name__)
DTYPES = {"float32": torch.float32, "float64": torch.float64}


class Statistics:
    """Covariances and null spaces of one model, computed at first use.

    The key of a cache file hashes the model's weights and buffers, the tokenizer, the text, the layer and its module, the
    piece length and the dtype; the null space adds the threshold. Files are written atomically; one whose stored key
    differs from its name's is refused. The model is held weakly, so that whoever keeps statistics does not keep it alive.
    """

    def __init__(self, view: ModelView, tok, hparams):
        self._model, self._arch = weakref.ref(view.model), view.arch
        self.tok = tok
        self.layers = list(hparams.layers)
        self.dtype = DTYPES[hparams.mom2_dtype]
        positions = getattr(view.model.config, "max_position_embeddings", None) or hparams.mom2_max_length
        self.max_length = min(hparams.mom2_max_length, positions)
        self.dir = Path(hparams.stats_dir).expanduser()
        texts = load_texts(hparams.mom2_dataset, hparams.mom2_n_samples, hparams.seed)
        self._texts = texts
        self._about = {"model": model_fingerprint(view.model), "text": text_fingerprint(texts),
                       "tokenizer": tokenizer_fingerprint(tok, texts), "max_length": self.max_length, "dtype": hparams.mom2_dtype}
        self._covariance: dict[int, torch.Tensor] = {}
        self._null: dict[tuple[int, float], Subspace] = {}

    @property
    def view(self) -> ModelView:
        """View of the model, which must still exist."""
        model = self._model()
        if model is None:
            raise StateError("the model that these statistics belong to no longer exists; make new ones")
        return ModelView(model, self._arch)

    def of_copy(self, model: torch.nn.Module) -> "Statistics":
        """These statistics for a deep copy of the model, sharing what has been measured."""
        twin = copy.copy(self)
        twin._model = weakref.ref(model)
        return twin

    def covariance(self, layer: int) -> torch.Tensor:
        """C of a layer, float32 or float64 [d_ff, d_ff]; all missing layers are measured in one pass."""
        if layer not in self._covariance:
            self._load_or_measure()
        return self._covariance[layer]

    def null_space(self, layer: int, threshold: float) -> Subspace:
        """Null space of C of a layer."""
        key = (layer, threshold)
        if key not in self._null:
            view = self.view
            about = self._key("nullspace", layer, view) | {"threshold": threshold}
            found = self._read(about)
            if found is None:
                space = null_space(self.covariance(layer), threshold)
                self._write(about, {"basis": space.basis, "complement": torch.tensor(space.complement)})
            else:
                space = Subspace(found["basis"].to(view.device_of(layer)), bool(found["complement"]))
            LOG.info("layer %d: null space of dimension %d of %d", layer, space.dim, view.d_ff)
            self._null[key] = space
        return self._null[key]

    def _load_or_measure(self) -> None:
        missing, view = [], self.view
        for layer in self.layers:
            found = self._read(self._key("covariance", layer, view))
            if found is None:
                missing.append(layer)
            else:
                self._covariance[layer] = found["covariance"].to(view.device_of(layer))
        if missing:
            LOG.info("measuring the covariance of layers %s on %d texts", missing, len(self._texts))
            measured = covariances(view, self.tok, self._texts, missing, self.max_length, self.dtype)
            for layer, matrix in measured.items():
                self._write(self._key("covariance", layer, view), {"covariance": matrix})
            self._covariance |= measured

    def _key(self, kind: str, layer: int, view: ModelView) -> dict:
        return self._about | {"kind": kind, "layer": layer, "module": view.down_weight_name(layer)}

    def _path(self, about: dict) -> Path:
        return self.dir / f"{about['kind']}-layer{about['layer']}-{key_fingerprint(about)}.safetensors"

    def _read(self, about: dict) -> dict[str, torch.Tensor] | None:
        path = self._path(about)
        if not path.is_file():
            return None
        from safetensors import safe_open
        try:
            with safe_open(path, "pt") as handle:
                stored = json.loads((handle.metadata() or {}).get("about", "null"))
        except Exception as problem:
            raise StateError(f"{path}: not a readable statistics file ({problem}); delete it to measure anew") from problem
        if stored != about:
            raise StateError(f"{path}: was made from {stored}, expected {about}; delete it to measure anew")
        # copies: the file's tensors are not aligned, and BLAS then rounds otherwise than it did when they were measured
        return {name: tensor.clone() for name, tensor in load_file(path).items()}

    def _write(self, about: dict, tensors: dict[str, torch.Tensor]) -> None:
        self.dir.mkdir(parents=True, exist_ok=True)
        save_tensors(self._path(about), tensors, {"about": json.dumps(about, sort_keys=True)})
