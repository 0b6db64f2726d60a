"""Which changes a peft LoRA adapter can hold, and its tensors and configuration."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn

from ..arch.view import is_conv1d
from ..errors import NeuronEditError, StateError
from ..utils.plain_trees import read_json
from ..utils.schema import damage_is
from ..utils.shown import shown
from .factors import Factors
from .source import Source

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
REMEDY = "Export the edits as sparse or merged"


def lora_modules(source: Source, names: Iterable[str]) -> list[str]:
    """Modules that an adapter for the named parameters acts on; ``NeuronEditError`` where peft could not."""
    for name in names:
        path, _, leaf = name.rpartition(".")
        module = source.model.get_submodule(path)
        if leaf not in ("weight", "bias") or not (isinstance(module, nn.Linear) or is_conv1d(module)):
            reason = f"a LoRA adapter changes linear layers only. {REMEDY}"
            raise NeuronEditError(f"{name} belongs to a {type(module).__name__}; {reason}")
        for other_path, other in source.model.named_modules():
            if other is not module and getattr(other, leaf, None) is getattr(module, leaf):
                reason = f"a LoRA adapter would change one of the two. {REMEDY}"
                raise NeuronEditError(f"{name} is also the {leaf} of {other_path}; {reason}")
    modules = list(dict.fromkeys(name.rpartition(".")[0] for name in names))
    biases = [name for name in names if is_bias(name)]
    without_bias = [path for path in modules if source.model.get_submodule(path).bias is None]
    if biases and without_bias:
        reason = f"peft merges adapters with changed biases only where every module has one. {REMEDY}"
        raise NeuronEditError(f"{biases[0]} changes and {without_bias[0]} has no bias: {reason}")
    return modules


def is_bias(name: str) -> bool:
    return name.endswith(".bias")


def lora_adapter(source: Source, modules: list[str], changes: dict[str, Factors]):
    """Peft's tensors by name, and the ``peft.LoraConfig`` whose scaling is 1 in every module."""
    tensors: dict[str, torch.Tensor] = {}
    ranks: dict[str, int] = {}
    any_bias = any(is_bias(name) for name in changes)
    for path in modules:
        d_out, d_in = source.view.matrix(f"{path}.weight").shape
        # A module whose bias alone changes gets a change of zero.
        no_change = Factors(torch.zeros(d_out, 1), torch.zeros(d_in, 1))
        factors = changes.get(f"{path}.weight", no_change)
        ranks[path] = factors.rank
        tensors[f"base_model.model.{path}.lora_A.weight"] = factors.key_factor.T.float()
        tensors[f"base_model.model.{path}.lora_B.weight"] = factors.value_factor.float()
        if any_bias:
            bias = changes.get(f"{path}.bias")
            values = torch.zeros(d_out) if bias is None else bias.matrix()[:, 0].float()
            tensors[f"base_model.model.{path}.lora_B.bias"] = values
    return tensors, _config(source, ranks, any_bias)


def _config(source: Source, ranks: dict[str, int], any_bias: bool):
    from peft import LoraConfig  # takes seconds

    if any_bias and "lora_bias" not in {field.name for field in dataclasses.fields(LoraConfig)}:
        remedy = f"install peft 0.14 or newer. {REMEDY}"
        raise NeuronEditError(f"the edits change biases, which this version of peft cannot hold: {remedy}")
    # The largest, because vLLM compares this one with the rank that it was started for.
    largest = max(ranks.values())
    other_ranks = {path: rank for path, rank in ranks.items() if rank != largest}
    transposed = any(is_conv1d(source.model.get_submodule(path)) for path in ranks)
    options = {"r": largest, "lora_alpha": largest, "lora_dropout": 0.0, "bias": "none"}
    options |= {"rank_pattern": other_ranks, "alpha_pattern": dict(other_ranks)}
    options |= {"target_modules": sorted(ranks), "fan_in_fan_out": transposed, "task_type": "CAUSAL_LM"}
    options |= {"inference_mode": True, "base_model_name_or_path": source.base}
    return LoraConfig(**options, **({"lora_bias": True} if any_bias else {}))


_OF_AN_EXPORT = {
    *("r", "lora_alpha", "rank_pattern", "alpha_pattern", "target_modules", "fan_in_fan_out", "lora_bias"),
    *("inference_mode", "base_model_name_or_path", "peft_version", "revision", "task_type"),
}
"""What an export says in ``adapter_config.json``; everything else is peft's default."""


def check_adapter(folder: Path, names: Iterable[str]) -> None:
    """``StateError`` for an adapter folder with more in it than changes of the named parameters.

    peft would load any weight of the model that such a file holds, and follow options that change others.
    """
    from peft import LoraConfig

    modules = {name.rpartition(".")[0] for name in names}
    parts = ("lora_A.weight", "lora_B.weight", "lora_B.bias")
    expected = {f"base_model.model.{module}.{part}" for module in modules for part in parts}
    defaults = LoraConfig().to_dict()
    with damage_is(StateError, f"{folder}: its files do not fit together; export again"):
        with safe_open(folder / WEIGHTS, "pt") as file:
            other = [f"{WEIGHTS} holds {name!r}" for name in file.keys() if name not in expected]  # noqa: SIM118
        config = read_json(folder / CONFIG)
        for alpha, rank in (("lora_alpha", "r"), ("alpha_pattern", "rank_pattern")):
            if config[alpha] != config[rank]:  # an export is of scale 1
                other.append(f"{CONFIG} sets {alpha!r} to {shown(config[alpha])}")
        for name, value in config.items():
            is_default = value is None or value is False or value == defaults.get(name)
            if name not in _OF_AN_EXPORT and not is_default:
                other.append(f"{CONFIG} sets {name!r}")
    if other:
        raise StateError(f"{folder}: {other[0]}, which is no part of an export; nothing was changed")
