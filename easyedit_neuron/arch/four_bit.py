"""Loading a model in 4 bits, whole but for the blocks that are edited.

Gradients run through 4-bit blocks as through any other (QLoRA trains adapters so); only the matrices that an
edit changes have to be numbers of their own. Llama-3-8B then takes 6 GB (one edited block) to 8 GB (five),
with those in bfloat16, in place of 16.
"""

from typing import Any

import torch
from torch import nn

from .. import resources
from ..errors import HostError, HparamsError
from .describe import architecture_of


def skeleton(path: str) -> nn.Module:
    """The model of a folder or hub name with weights that take no memory, from its config alone.

    Raises:
        HostError: the config cannot be read.
    """
    import transformers

    resources.require_model(path)
    path = resources.model_path(path)
    try:
        config = transformers.AutoConfig.from_pretrained(path)
        with torch.device("meta"):
            try:
                return transformers.AutoModelForCausalLM.from_config(config)
            except AttributeError:  # a config for pictures too (Qwen 3.5), of which the text part is loaded
                return transformers.AutoModelForCausalLM.from_config(config.get_text_config())
    except Exception as problem:  # whatever transformers raises about files of others
        raise HostError(f"{path}: its config cannot be read: {problem}") from None


def four_bit_options(path: str, hparams, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """Arguments of ``from_pretrained`` that load all in 4 bits (NF4) but the edited blocks and the head.

    Args:
        path: folder or hub name.
        hparams: hyperparameters whose ``layers`` are edited.
        dtype: of the edited blocks, the head, and of what is computed.
        device: where the model goes.

    Raises:
        HparamsError: the hyperparameters do not name the layers that are edited.
        HostError: bitsandbytes is not installed.
    """
    layers = getattr(hparams, "layers", None)
    if not layers:
        raise HparamsError(
            "field 'load_in_4bit': the blocks that are edited stay as they are, so 'layers' must name them; "
            f"name them, or set load_in_4bit to false ({hparams.alg_name} "
            + ("edits every layer if 'layers' is empty)" if layers == [] else "has no such field)")
        )
    try:
        import bitsandbytes  # noqa: F401
    except ImportError:
        raise HostError(
            "field 'load_in_4bit' needs bitsandbytes: pip install 'easyedit-neuron[four-bit]'"
        ) from None
    from transformers import BitsAndBytesConfig

    arch = architecture_of(skeleton(path), hparams.module_overrides())
    spared = [arch.layer_module_tmp.format(layer) for layer in layers]
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=[*arch.lm_head_module.split("|"), *spared],
    )
    return {"quantization_config": config, "device_map": {"": device}}


def keep_layout(model: nn.Module) -> None:
    """Have the 4-bit matrices keep the layout that they were loaded in.

    On a CPU with AVX512-BF16 bitsandbytes packs them anew at the first pass without a gradient, in another
    precision, and only matrices of whole blocks of 64: edits would depend on the machine and on what ran
    before.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
