"""What peft's LoRA can hold, and the tensors and the configuration in which it does."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable

import torch
from torch import nn

from ..arch.view import is_conv1d
from ..errors import NeuronEditError
from .factors import Factors
from .source import Source

OTHERWISE = "Export the edits as sparse or merged"


def lora_modules(source: Source, names: Iterable[str]) -> list[str]:
    """Modules that an adapter for the named parameters acts on.

    Raises:
        NeuronEditError: LoRA cannot change one of the parameters, or peft could not merge the adapter.
    """
    modules = list(dict.fromkeys(name.rpartition(".")[0] for name in names))
    biased = [name for name in names if is_bias(name)]
    for name in names:
        path, _, leaf = name.rpartition(".")
        module = source.model.get_submodule(path)
        if leaf not in ("weight", "bias") or not (isinstance(module, nn.Linear) or is_conv1d(module)):
            raise NeuronEditError(
                f"{name} belongs to a {type(module).__name__}; a LoRA adapter changes linear layers only. "
                f"{OTHERWISE}"
            )
        owners = [
            other
            for other, candidate in source.model.named_modules()
            if candidate is not module and getattr(candidate, leaf, None) is getattr(module, leaf)
        ]
        if owners:
            raise NeuronEditError(
                f"{name} is also the {leaf} of {owners[0]}; a LoRA adapter would change one of the two. "
                f"{OTHERWISE}"
            )
    if biased:
        bare = [path for path in modules if source.model.get_submodule(path).bias is None]
        if bare:
            raise NeuronEditError(
                f"{biased[0]} changes and {bare[0]} has no bias: peft merges adapters with changed biases "
                f"only where every module has one. {OTHERWISE}"
            )
    return modules


def is_bias(name: str) -> bool:
    """Whether a parameter is a module's bias."""
    return name.endswith(".bias")


def lora_tensors(
    source: Source, modules: list[str], kept: dict[str, Factors]
) -> tuple[dict[str, torch.Tensor], dict[str, int], bool]:
    """(peft's tensors by name, rank of every module, whether biases change)."""
    tensors: dict[str, torch.Tensor] = {}
    ranks: dict[str, int] = {}
    biased = any(is_bias(name) for name in kept)
    for path in modules:
        d_out, d_in = source.view.matrix(f"{path}.weight").shape
        factors = kept.get(f"{path}.weight") or Factors(
            torch.zeros(d_out, 1), torch.zeros(d_in, 1)
        )  # only its bias changes
        ranks[path] = factors.rank
        tensors[f"base_model.model.{path}.lora_A.weight"] = factors.right.T.float()
        tensors[f"base_model.model.{path}.lora_B.weight"] = factors.left.float()
        if biased:
            bias = kept.get(f"{path}.bias")
            tensors[f"base_model.model.{path}.lora_B.bias"] = (
                torch.zeros(d_out) if bias is None else bias.matrix()[:, 0].float()
            )
    return tensors, ranks, biased


def lora_config(source: Source, ranks: dict[str, int], biased: bool):
    """``peft.LoraConfig`` whose scaling is 1 in every module."""
    from peft import LoraConfig  # takes seconds, and nothing else of the package needs it

    usual = Counter(ranks.values()).most_common(1)[0][0]
    patterns = {path: rank for path, rank in ranks.items() if rank != usual}
    options = {}
    if biased:
        if "lora_bias" not in {field.name for field in dataclasses.fields(LoraConfig)}:
            raise NeuronEditError(
                "the edits change biases, which this version of peft cannot hold: install peft 0.14 or newer. "
                f"{OTHERWISE}"
            )
        options["lora_bias"] = True
    conv1d = any(is_conv1d(source.model.get_submodule(path)) for path in ranks)
    return LoraConfig(
        r=usual,
        lora_alpha=usual,
        rank_pattern=patterns,
        alpha_pattern=dict(patterns),
        target_modules=sorted(ranks),
        lora_dropout=0.0,
        bias="none",
        fan_in_fan_out=conv1d,
        task_type="CAUSAL_LM",
        inference_mode=True,
        base_model_name_or_path=source.base,
        **options,
    )
