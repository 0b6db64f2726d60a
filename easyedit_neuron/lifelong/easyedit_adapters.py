"""What single methods of EasyEdit want beside a request, and get from nobody when it is not EasyEdit's
scripts that call them.

Nothing of EasyEdit is changed on the disk; what is set on its modules holds for this process.
"""

from __future__ import annotations

import functools
import logging
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
from ..utils.fingerprint import tensors_fingerprint
from ..utils.io import replacing

LOG = logging.getLogger(__name__)

ROUTED = {"GRACE", "WISE"}
"""Methods that decide once for a whole batch whether an edit speaks: prompts are given to them one at a
time."""

NO_EDITS = {
    "IKE": "it changes the prompt and not the model: every question gets its own new fact and demonstrations in front of it, so that there "
    "is no edited model on which other questions could be asked",
    "FT-Api": "it trains a model behind an interface of OpenAI",
    "DeepEdit-Api": "it asks a model behind an interface",
}
"""Methods of ``ALG_DICT`` with which the runner can do nothing, and why."""

MAX_TOKENS = 256
"""Longest piece of text that the covariance is measured on, as in our own methods."""


def refuse(alg_name: str) -> None:
    """``HostError`` for the methods of ``NO_EDITS``."""
    if alg_name in NO_EDITS:
        raise HostError(f"EasyEdit's {alg_name} cannot be run here: {NO_EDITS[alg_name]}")


def prepare(alg_name: str, module: types.ModuleType, model: torch.nn.Module, tok, hparams: Any) -> None:
    """Before the first edit, on the untouched model.

    - ROME, MEMIT, PMET, AlphaEdit and the like read a covariance that EasyEdit measures on Wikipedia. Where
      ``mom2_dataset`` is ``tiny-world`` or a ``.txt`` or ``.jsonl`` file, ours is put where they look for it.
    - AlphaEdit's projector is made by its own code, and handed over in memory: left to itself it also writes
      it to ``null_space_project.pt`` in the working directory, and never reads that again unless ``P_loc``
      names it.
    - PMET counts positions from the left, and EasyEdit pads on the left for it, as it does not for MEMIT:
      padding goes to the right.
    - WISE is told that edits follow one another: nothing in EasyEdit tells it, and then every edit takes the
      last one's place.
    - AdaLoRA's schedule gets a length: PEFT refuses it without one. EasyEdit never takes a step of it.

    Args:
        alg_name, module: the method's name in ``ALG_DICT``, and the module of its function.
        model, tok, hparams: what the method is going to be called with; ``hparams`` is changed.

    Raises:
        HparamsError: a statistic is wanted that we do not have.
    """
    if _is_ours(getattr(hparams, "mom2_dataset", None)) and getattr(hparams, "mom2_adjustment", True):
        hparams.stats_dir = str(covariances(model, tok, hparams))
    if alg_name == "AlphaEdit" and not Path(hparams.P_loc).is_file():
        with torch.no_grad():
            module.P = torch.stack(
                [module.get_project(model, tok, layer, hparams) for layer in hparams.layers]
            )
        module.P_loaded, hparams.P_loc = True, hparams.stats_dir  # it only asks whether that exists
    if alg_name == "PMET":
        tok.padding_side = "right"
    if alg_name == "WISE":
        hparams.sequential_edit = True
    if alg_name == "LoRA" and hparams.lora_type == "adalora":
        module.AdaLoraConfig = functools.partial(_plain(module.AdaLoraConfig), total_step=hparams.num_steps)


def covariances(model: torch.nn.Module, tok, hparams: Any) -> Path:
    """The folder in which EasyEdit's ``layer_stats`` finds C = E[k k^T] of every layer that the method
    changes.

    The folder's name hashes the matrices: another model of the same name, or another text, has another
    folder.
    """
    view, names = ModelView.of(model), _weights(hparams)
    source = types.SimpleNamespace(
        layers=list(hparams.layers),
        mom2_dataset=hparams.mom2_dataset,
        seed=0,
        mom2_max_length=MAX_TOKENS,
        mom2_n_samples=hparams.mom2_n_samples,
        mom2_dtype=hparams.mom2_dtype,
        stats_dir=hparams.stats_dir,
    )
    for layer, wanted in names.items():
        strange = [name for name in wanted if f"{name}.weight" != view.down_weight_name(layer)]
        if strange:
            raise HparamsError(
                f"field 'mom2_dataset': {hparams.mom2_dataset!r} gives statistics of the FFNs' down projections alone, and "
                f"the method changes {strange[0]}"
            )
    statistics = Statistics(view, tok, source)
    found = {names[layer][0]: statistics.covariance(layer).cpu() for layer in source.layers}
    folder = Path(hparams.stats_dir).expanduser() / f"easyedit-{tensors_fingerprint(found.items())}"
    place = folder / model.config._name_or_path.rsplit("/")[-1] / f"{hparams.mom2_dataset}_stats"
    for name, matrix in found.items():
        path = place / f"{name}_{hparams.mom2_dtype}_mom2_{hparams.mom2_n_samples}.npz"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as part, open(part, "wb") as file:
                # a sum over one sample: what is read is the sum divided by the count
                numpy.savez(
                    file,
                    **{"mom2.mom2": matrix.numpy(), "mom2.count": 1, "sample_size": hparams.mom2_n_samples},
                )
            LOG.info("covariance for EasyEdit: %s", path)
    return folder


def with_unrelated_text(alg_name: str, requests: list[dict], texts: Sequence[str], first: int) -> list[dict]:
    """Requests as WISE wants them: with a text that the edit is to leave alone (EasyEdit's scripts take it
    from zsRE's training file)."""
    if alg_name != "WISE":
        return requests
    if not texts:
        raise HparamsError(
            "WISE learns from text that an edit is to leave alone, and there is none: name some, data.text=FILE"
        )
    return [{"loc_prompt": texts[(first + i) % len(texts)], **request} for i, request in enumerate(requests)]


def follow_prompt(model: torch.nn.Module) -> None:
    """GRACE looks at one token: from now on at the last one of the prompt that is asked.

    EasyEdit leaves it where the last edit's prompt ended, so that of all edits the last one alone is found
    again. Its authors' code goes by the labels; here the evaluation says which tokens are wanted
    (``logits_to_keep``), and the first of them follows the prompt's last. Without a target that is the text's
    last token.
    """
    adapters = [module for module in model.modules() if type(module).__name__ == "GRACEAdapter"]

    def look(_model, given: tuple, named: dict) -> None:
        keep = named.get("logits_to_keep")
        tokens = given[0] if given else named["input_ids"]  # lm-eval names nothing
        for adapter in adapters:
            if not adapter.training and tokens.shape[1] > 1:  # one token: generation with a cache goes on
                adapter.key_id = int(keep[0]) if isinstance(keep, torch.Tensor) else -1

    model.register_forward_pre_hook(look, with_kwargs=True)


def _is_ours(source: str | None) -> bool:
    return source is not None and (
        source in resources.SHIPPED_DATA or Path(source).suffix in (".txt", ".jsonl")
    )


def _weights(hparams: Any) -> dict[int, list[str]]:
    templates = getattr(hparams, "rewrite_module_tmps", None) or [hparams.rewrite_module_tmp]
    return {layer: [template.format(layer) for template in templates] for layer in hparams.layers}


def _plain(config: Any) -> Any:
    return config.func if isinstance(config, functools.partial) else config
