"""Models that cannot be edited as they are: compiled, quantised, or wrapped by another library."""

import torch
from torch import nn

from ..errors import ArchitectureError

_QUANTISED_CLASSES = ("Linear4bit", "Linear8bitLt", "QuantLinear", "WQLinear", "HQQLinear", "AqlmLinear")


def require_plain(model: nn.Module) -> None:
    """Check that hooks see what the model computes, and that its weights are the numbers that it uses.

    Raises:
        ArchitectureError: says what the model is, and what to edit instead.
    """
    if hasattr(model, "_orig_mod"):
        raise _refused(
            "is compiled (torch.compile)", "edit model._orig_mod, which it shares its weights with"
        )
    if any(getattr(module, "_compiled_call_impl", None) is not None for module in model.modules()):
        raise _refused(
            "is compiled (model.compile()), so that nothing can be read inside of it",
            "compile it after editing",
        )
    if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        raise _refused(f"is wrapped by {type(model).__name__}", "edit model.module")
    if hasattr(model, "peft_config") and hasattr(model, "get_base_model"):
        raise _refused(
            "is wrapped by peft",
            "edit model.merge_and_unload(), or the base model, and put the adapter on afterwards",
        )
    quantised = _quantised_module(model)
    if quantised is not None:
        name, kind = quantised
        raise _refused(
            f"is quantised ({name} is a {kind})",
            "load it unquantised (float32, bfloat16 or float16), edit, and quantise the edited model "
            "(easyedit-neuron export --to merged)",
        )


def _quantised_module(model: nn.Module) -> tuple[str, str] | None:
    """Name and class of a linear layer whose weight is no plain matrix of floats."""
    for name, module in model.named_modules():
        kind = type(module).__name__
        if kind in _QUANTISED_CLASSES or type(module).__module__.startswith(("torch.ao.nn", "torchao.")):
            return name, kind
        weight = getattr(module, "weight", None)
        if isinstance(module, nn.Linear) and isinstance(weight, torch.Tensor):
            if not weight.is_floating_point():
                return name, f"{kind} of {str(weight.dtype).removeprefix('torch.')}"
            if type(weight.data) is not torch.Tensor:
                return name, f"{kind} of {type(weight.data).__name__}"
    return None


def _refused(what: str, remedy: str) -> ArchitectureError:
    return ArchitectureError(f"the model {what} and cannot be edited as it is; {remedy}")
