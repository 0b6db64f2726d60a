"""What single methods of EasyEdit need besides a request, which EasyEdit's own scripts give them elsewhere.

Nothing of EasyEdit is changed on the disk; what is set on its modules holds for this process.
"""

import copy
import functools
import logging
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
import torch

from .. import resources
from ..arch.view import ModelView
from ..errors import HostError, HparamsError
from ..statistics.cache import Statistics
from ..statistics.self_text import BATCH, SELF
from ..statistics.text import is_local, open_texts
from ..utils.fingerprint import tensors_fingerprint
from ..utils.io import replacing

LOG = logging.getLogger(__name__)

ONE_PROMPT_AT_A_TIME = {"GRACE", "WISE"}
"""Methods that decide once for a whole batch whether an edit applies: measured with one prompt per batch."""

NO_EDITS = {
    "IKE": "it changes the prompt and not the model: every question gets its own new fact and demonstrations "
    "in front of it, so that there is no edited model on which other questions could be asked; ours looks "
    "the facts up, method=ike",
    "FT-Api": "it trains a model behind an interface of OpenAI",
    "DeepEdit-Api": "it asks a model behind an interface",
}
"""Methods of ``ALG_DICT`` that cannot be run here, and why."""

MAX_TOKENS = 256
"""Longest piece of text that the covariance is measured on, as in our own methods."""

UNSET = object()
"""Initial value of a variable that does not exist before the first edit."""

_MEMIT = {"CONTEXT_TEMPLATES_CACHE": None, "COV_CACHE": {}}
_ALPHAEDIT = {**_MEMIT, "P": UNSET, "P_loaded": False, "cache_c": UNSET, "cache_c_new": False}
_ROME_U = {"inv_mom2_cache": {}}

STATE_VARIABLES: dict[str, dict[str, dict[str, Any]]] = {
    "ROME": {"rome_main": {"CONTEXT_TEMPLATES_CACHE": None}, "compute_u": _ROME_U},
    "R-ROME": {"r_rome_main": {"CONTEXT_TEMPLATES_CACHE": None}, "compute_u": _ROME_U},
    **{name: {f"{name.lower()}_main": _MEMIT} for name in ("MEMIT", "PMET", "EMMET", "EAMET", "CORE")},
    "MEMIT-FE": {"memit_FE_main": _MEMIT},
    "AlphaEdit": {"AlphaEdit_main": _ALPHAEDIT},
    "SPHERE": {"SPHERE_main": _ALPHAEDIT},
    "WISE": {
        "WISE": {"edit_history": [], "merge_group_edit_history": []},
        "utils": {"CONTEXT_TEMPLATES_CACHE": None},
        "wise_main": {"WISEload": True},
    },
    "MELO": {"peft_egg.src.peft.tuners.melo": {"LORA_BLOCK_MAPPING": []}},
}
"""Method -> module of its package -> variables that hold state from one edit to the next, with their initial
values. EasyEdit's other methods keep no such state."""

CACHES = {"COV_CACHE", "inv_mom2_cache"}
"""Of these variables, those that are filled again from files and therefore not saved with a run."""


class ModuleVariables:
    """The variables of EasyEdit's modules that hold a method's state; see ``STATE_VARIABLES``."""

    def __init__(self, alg_name: str, package: str):
        named = {f"{package}.{name}": values for name, values in STATE_VARIABLES.get(alg_name, {}).items()}
        self._initial = {name: values for name, values in named.items() if name in sys.modules}

    def copies(self, caches: bool = True) -> dict[str, dict[str, Any]]:
        """Module -> variable -> copy of its value, of the variables that exist."""
        return {
            module: {
                name: _copy(vars(sys.modules[module])[name])
                for name in initial
                if name in vars(sys.modules[module]) and (caches or name not in CACHES)
            }
            for module, initial in self._initial.items()
        }

    def write(self, values: dict[str, dict[str, Any]]) -> None:
        """Set the variables to the values of ``copies``, and to their initial values where it has none."""
        for module_name, initial in self._initial.items():
            module, module_values = sys.modules[module_name], values.get(module_name, {})
            for name, first in initial.items():
                value = module_values.get(name, first)
                if value is not UNSET:
                    setattr(module, name, _copy(value))
                elif hasattr(module, name):
                    delattr(module, name)


def _copy(value: Any) -> Any:
    """EasyEdit changes tensors in place, and only adds entries to containers."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    return copy.copy(value) if isinstance(value, (dict, list)) else value


def refuse(alg_name: str) -> None:
    """``HostError`` for the methods of ``NO_EDITS``."""
    if alg_name in NO_EDITS:
        raise HostError(f"EasyEdit's {alg_name} cannot be run here: {NO_EDITS[alg_name]}")


def prepare(alg_name: str, module: types.ModuleType, model: torch.nn.Module, tok, hparams: Any) -> None:
    """Prepare a method before the first edit, on the untouched model; ``hparams`` is changed.

    - ROME, MEMIT, PMET, AlphaEdit and the like read a covariance that EasyEdit measures on Wikipedia. Where
      ``mom2_dataset`` is ``self``, ``tiny-world`` or a ``.txt`` or ``.jsonl`` file, ours is written where
      they look.
    - The projector of AlphaEdit and SPHERE is computed by their own code and handed over in memory. They
      would also write it to ``null_space_project.pt`` in the working directory, and read it only if
      ``P_loc`` names it.
    - PMET counts positions from the left, but EasyEdit pads on the left for it: padding goes to the right.
    - WISE needs ``sequential_edit``, which EasyEdit never sets: every edit would take the last one's place.
    - AdaLoRA's schedule gets a length, without which PEFT refuses it. EasyEdit never takes a step of it.
    """
    source = getattr(hparams, "mom2_dataset", None)
    if source is not None and is_local(source) and getattr(hparams, "mom2_adjustment", True):
        hparams.stats_dir = str(write_covariances(model, tok, hparams))
    if alg_name in ("AlphaEdit", "SPHERE") and not Path(hparams.P_loc).is_file():
        with torch.no_grad():
            projectors = [module.get_project(model, tok, layer, hparams) for layer in hparams.layers]
        # Both only ask whether P_loc exists.
        module.P, module.P_loaded, hparams.P_loc = torch.stack(projectors), True, hparams.stats_dir
    if alg_name == "PMET":
        tok.padding_side = "right"
    if alg_name == "WISE":
        hparams.sequential_edit = True
    if alg_name == "LoRA" and hparams.lora_type == "adalora":
        config = module.AdaLoraConfig
        config = config.func if isinstance(config, functools.partial) else config  # of an earlier run
        module.AdaLoraConfig = functools.partial(config, total_step=hparams.num_steps)


def write_covariances(model: torch.nn.Module, tok, hparams: Any) -> Path:
    """Write C = E[k k^T] of every edited layer where EasyEdit's ``layer_stats`` looks; return ``stats_dir``.

    Its name hashes the matrices, so that another model of the same name, or another text, has another folder.
    """
    view = ModelView.of(model)
    templates = getattr(hparams, "rewrite_module_tmps", None) or [hparams.rewrite_module_tmp]
    modules = {layer: [template.format(layer) for template in templates] for layer in hparams.layers}
    for layer, names in modules.items():
        for name in names:
            if f"{name}.weight" != view.down_weight_name(layer):
                raise HparamsError(
                    f"field 'mom2_dataset': {hparams.mom2_dataset!r} gives statistics of the FFNs' down "
                    f"projections alone, and the method changes {name}"
                )
    names = ("mom2_dataset", "mom2_n_samples", "mom2_dtype", "stats_dir")
    fields = {name: getattr(hparams, name) for name in names}
    own = {"seed": 0, "mom2_max_length": MAX_TOKENS, "mom2_cut": False, "mom2_name_share": 0.0}
    own |= dict.fromkeys(("mom2_names", "mom2_file", "nullspace_file"))
    source = types.SimpleNamespace(layers=list(hparams.layers), **own, **fields)
    statistics = Statistics(view, tok, source)
    covariances = {modules[layer][0]: statistics.covariance(layer).cpu() for layer in source.layers}
    folder = Path(hparams.stats_dir).expanduser() / f"easyedit-{tensors_fingerprint(covariances.items())}"
    model_name = model.config._name_or_path.rsplit("/")[-1]
    # One text, as EasyEdit forms it: an absolute path of the dataset stays below the folder.
    dataset_folder = folder / f"{model_name}/{hparams.mom2_dataset}_stats"
    for name, matrix in covariances.items():
        path = dataset_folder / f"{name}_{hparams.mom2_dtype}_mom2_{hparams.mom2_n_samples}.npz"
        if path.is_file():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        # EasyEdit divides the sum by the count: the mean is written as the sum over one sample.
        arrays = {"mom2.mom2": matrix.numpy(), "mom2.count": 1, "sample_size": hparams.mom2_n_samples}
        with replacing(path) as part, open(part, "wb") as file:
            numpy.savez(file, **arrays)
        LOG.info("covariance for EasyEdit: %s", path)
    return folder


def own_sentences(model: torch.nn.Module, tok) -> list[str]:
    """First sentences of texts that the untouched model writes."""
    texts = open_texts(ModelView.of(model), tok, SELF, BATCH, 0, resources.statistics_dir())
    return [text.split(". ")[0] for text in texts]


def with_unrelated_text(alg_name: str, requests: list[dict], texts: Sequence[str], first: int) -> list[dict]:
    """For WISE, requests with a text that the edit must leave alone (EasyEdit's scripts take it from zsRE's
    training file); other methods' requests as they are."""
    if alg_name != "WISE":
        return requests
    return [{"loc_prompt": texts[(first + i) % len(texts)], **request} for i, request in enumerate(requests)]


def follow_prompt(model: torch.nn.Module) -> None:
    """Let GRACE look at the last token of the current prompt, in every forward pass from now on.

    EasyEdit leaves its one token where the last edit's prompt ended, so that only that edit is found again.
    The evaluation says which logits it needs (``logits_to_keep``), the first of which belongs to the prompt's
    last token.
    """
    adapters = [module for module in model.modules() if type(module).__name__ == "GRACEAdapter"]

    def set_key_position(_model, positional: tuple, named: dict) -> None:
        keep = named.get("logits_to_keep")
        tokens = positional[0] if positional else named["input_ids"]  # lm-eval passes it by position
        for adapter in adapters:
            if not adapter.training and tokens.shape[1] > 1:  # one token: a cached generation continues
                adapter.key_id = int(keep[0]) if isinstance(keep, torch.Tensor) else -1

    model.register_forward_pre_hook(set_key_position, with_kwargs=True)
