"""Which changes a peft LoRA adapter can hold, and its tensors and configuration."""

import dataclasses
from collections import Counter
from collections.abc import Iterable

import torch
from torch import nn

from ..arch.view import is_conv1d
from ..errors import NeuronEditError
from .factors import Factors
from .source import Source

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
    most_common = Counter(ranks.values()).most_common(1)[0][0]
    other_ranks = {path: rank for path, rank in ranks.items() if rank != most_common}
    transposed = any(is_conv1d(source.model.get_submodule(path)) for path in ranks)
    options = {"r": most_common, "lora_alpha": most_common, "lora_dropout": 0.0, "bias": "none"}
    options |= {"rank_pattern": other_ranks, "alpha_pattern": dict(other_ranks)}
    options |= {"target_modules": sorted(ranks), "fan_in_fan_out": transposed, "task_type": "CAUSAL_LM"}
    options |= {"inference_mode": True, "base_model_name_or_path": source.base}
    return LoraConfig(**options, **({"lora_bias": True} if any_bias else {}))
