"""Statistics on disk and in memory, under a key that hashes everything they depend on."""

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
from ..errors import StateError
from ..utils.fingerprint import key_fingerprint, model_fingerprint, tokenizer_fingerprint
from . import matrix_files as files
from .covariance import covariances
from .memory_use import near
from .nullspace import Subspace, null_space
from .text import Texts

LOG = logging.getLogger(__name__)
DTYPES = {"float32": torch.float32, "float64": torch.float64}
_SAMPLE = 32


class Statistics:
    """Covariances and null spaces of one model, computed at first use; until then neither text nor weights
    are read.

    The key of a cache file hashes the model's weights and buffers, the tokenizer, the text, the layer and its
    module, the piece length and the dtype; the null space adds the threshold. Files are written atomically;
    one whose stored key differs from its name's is refused. A measurement under way keeps its sums in a
    ``.partial`` file and goes on from there after an interruption. The model is held weakly, so that whoever
    keeps statistics does not keep it alive.

    Args:
        view, tok, hparams: model, tokenizer, ``PathHyperParams``.
        layers_at_once: layers measured in one pass; unset: all. Fewer need less memory and more passes, and
            what has been measured is then kept on disk alone until it is asked for.
    """

    def __init__(self, view: ModelView, tok, hparams, layers_at_once: int | None = None):
        self._model, self._arch = weakref.ref(view.model), view.arch
        self.tok = tok
        self.layers = list(hparams.layers)
        self.layers_at_once = layers_at_once
        self._dtype, self.dtype = hparams.mom2_dtype, DTYPES[hparams.mom2_dtype]
        positions = getattr(view.model.config, "max_position_embeddings", None) or hparams.mom2_max_length
        self.max_length = min(hparams.mom2_max_length, positions)
        self.dir = Path(hparams.stats_dir).expanduser()
        self._source = hparams.mom2_dataset, hparams.mom2_n_samples, hparams.seed, self.dir
        self._covariance: dict[int, torch.Tensor] = {}
        self._null: dict[tuple[int, float], Subspace] = {}
        self._samples: dict[int, list[list[int]]] = {}

    @property
    def view(self) -> ModelView:
        """View of the model, which must still exist."""
        model = self._model()
        if model is None:
            raise StateError("the model that these statistics belong to no longer exists; make new ones")
        return ModelView(model, self._arch)

    @cached_property
    def _texts(self) -> Texts:
        return Texts(*self._source)

    @cached_property
    def _about(self) -> dict:
        """What every key has; made when something is first asked for, so of the weights as they are then."""
        tokenizer = tokenizer_fingerprint(self.tok, list(islice(self._texts, _SAMPLE)), _SAMPLE)
        return {
            "model": model_fingerprint(self.view.model),
            "text": self._texts.fingerprint,
            "tokenizer": tokenizer,
            "max_length": self.max_length,
            "dtype": self._dtype,
        }

    def of_copy(self, model: torch.nn.Module) -> "Statistics":
        """These statistics for a deep copy of the model, sharing what has been measured."""
        twin = copy.copy(self)
        twin._model = weakref.ref(model)
        return twin

    def held(self) -> dict:
        """Which statistics are in memory, for ``hold``."""
        return {"covariance": sorted(self._covariance), "nullspace": [list(key) for key in self._null]}

    def hold(self, held: dict) -> None:
        """Has what another process held in memory too: from the files, or measured on the weights as they are
        now."""
        for layer in held["covariance"]:
            self.covariance(layer)
        for layer, threshold in held["nullspace"]:
            self.null_space(layer, threshold)

    def ready(self) -> None:
        """Has every layer's covariance at hand: measured now, on the weights as they are now, where there is
        no file."""
        for layer in self.layers:
            self.covariance(layer)

    def covariance(self, layer: int) -> torch.Tensor:
        """C of a layer, float32 or float64 [d_ff, d_ff], on the device of its weight (in host memory where
        that is full).

        Layers without a file are measured together.

        Raises:
            DataError: something is wrong with the text; found before anything is measured.
        """
        if layer not in self._covariance:
            view = self.view
            if layer not in self.layers:
                raise StateError(f"layer {layer} is not among the layers {self.layers} of these statistics")
            if not self._path(self._key("covariance", layer, view)).is_file():
                self._measure(view)
            if layer not in self._covariance:
                about = self._key("covariance", layer, view)
                self._covariance[layer] = self._read(about, view.device_of(layer))["covariance"]
        return self._covariance[layer]

    def null_space(self, layer: int, threshold: float) -> Subspace:
        """Null space of C of a layer."""
        key = (layer, threshold)
        if key not in self._null:
            view = self.view
            about = self._key("nullspace", layer, view) | {"threshold": threshold}
            found = self._read(about, view.device_of(layer))
            if found is None:
                space = null_space(self.covariance(layer), threshold)
                files.write(
                    self._path(about),
                    about,
                    {"basis": space.basis, "complement": torch.tensor(space.complement)},
                )
            else:
                space = Subspace(found["basis"], bool(found["complement"]))
            LOG.info("layer %d: null space of dimension %d of %d", layer, space.dim, view.d_ff)
            self._null[key] = space
        return self._null[key]

    def sample(self, tokens: int) -> list[list[int]]:
        """Token rows of texts drawn with the seed, ``tokens`` in all where the source has so many; the same
        at every call."""
        if tokens not in self._samples:
            texts, rows, left = self._texts, [], tokens
            order = random.Random(self._source[2]).sample(range(len(texts)), min(len(texts), tokens))
            drawn = set(order)
            found = {number: text for number, text in enumerate(texts) if number in drawn}
            for number in order:
                row = token_ids(self.tok, found[number])[: min(left, self.max_length)]
                rows, left = rows + [row] if row else rows, left - len(row)
                if not left:
                    break
            self._samples[tokens] = rows
        return self._samples[tokens]

    def _measure(self, view: ModelView) -> None:
        missing = [
            layer for layer in self.layers if not self._path(self._key("covariance", layer, view)).is_file()
        ]
        size = self.layers_at_once or len(missing)
        self.dir.mkdir(parents=True, exist_ok=True)  # a folder that cannot be made is found out now
        for start in range(0, len(missing), size):
            group = missing[start : start + size]
            LOG.info("measuring the covariance of layers %s on %d texts", group, len(self._texts))
            about = self._about | {
                "kind": "covariance",
                "layers": group,
                "modules": [view.down_weight_name(l) for l in group],
            }
            path = self.dir / f"covariance-layers{group[0]}-{group[-1]}-{key_fingerprint(about)}.partial"
            unfinished = files.Unfinished(path, about)
            measured = covariances(
                view, self.tok, self._texts, group, self.max_length, self.dtype, unfinished=unfinished
            )
            for layer, matrix in measured.items():
                about = self._key("covariance", layer, view)
                files.write(self._path(about), about, {"covariance": matrix})
            unfinished.remove()
            if len(group) == len(missing):
                self._covariance |= measured
            del measured  # before the sums of the next group take their place

    def _key(self, kind: str, layer: int, view: ModelView) -> dict:
        return self._about | {"kind": kind, "layer": layer, "module": view.down_weight_name(layer)}

    def _path(self, about: dict) -> Path:
        return self.dir / f"{about['kind']}-layer{about['layer']}-{key_fingerprint(about)}.safetensors"

    def _read(self, about: dict, device: torch.device) -> dict[str, torch.Tensor] | None:
        found = files.read(self._path(about), about)
        what = f"{about['kind']} of layer {about['layer']}"
        return (
            None if found is None else {name: near(tensor, device, what) for name, tensor in found[0].items()}
        )
