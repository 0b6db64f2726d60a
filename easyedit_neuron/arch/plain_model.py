"""Models that cannot be edited as they are: compiled, quantised, or wrapped by another library."""

import torch
from torch import nn

from ..errors import ArchitectureError

_BITSANDBYTES = ("Linear4bit", "Linear8bitLt")
_QUANTISED_CLASSES = ("QuantLinear", "WQLinear", "HQQLinear", "AqlmLinear")


def is_bitsandbytes(module: nn.Module) -> bool:
    """Whether a linear layer's weight is quantised by bitsandbytes, which lets gradients through."""
    return any(base.__name__ in _BITSANDBYTES for base in type(module).__mro__)


def is_quantised(model: nn.Module) -> bool:
    """Whether parts of a model are quantised by bitsandbytes."""
    return any(is_bitsandbytes(module) for module in model.modules())


def require_plain(model: nn.Module) -> None:
    """Check that hooks see what the model computes, and that its weights are the numbers that it uses.

    Parts quantised by bitsandbytes pass: gradients go through them, and ``ModelView.matrix`` refuses them.

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
            "load it with load_in_4bit (bitsandbytes, all but the edited layers), or unquantised (float32, "
            "bfloat16 or float16), edit, and quantise the edited model (easyedit-neuron export --to merged)",
        )


def _quantised_module(model: nn.Module) -> tuple[str, str] | None:
    """Name and class of a linear layer whose weight is no plain matrix of floats."""
    for name, module in model.named_modules():
        kind = type(module).__name__
        if is_bitsandbytes(module):
            continue
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
