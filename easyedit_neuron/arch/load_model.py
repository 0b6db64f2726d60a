"""Model, tokenizer and device of the built-in editor, from hyperparameters: by the model's config, never by
its name."""

import logging
from typing import Any

import torch

from .. import resources
from ..errors import HostError, HparamsError
from .four_bit import four_bit_options, keep_layout
from .gguf import is_gguf, load_gguf
from .plain_model import is_quantised

LOG = logging.getLogger(__name__)


def target_device(device: Any) -> torch.device:
    """``device`` of the hyperparameters as torch's: a number is that CUDA device, None the first if any."""
    text = "" if device is None else str(device).strip()
    if not text:
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        target = torch.device(f"cuda:{text}" if text.isdecimal() else text)
    except RuntimeError:
        raise HparamsError(f"field 'device': {device!r} is no device; write cpu, cuda:0 or 0") from None
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if target.type == "cuda" and (target.index or 0) >= count:
        here = f"this machine has {count} CUDA device(s)" if count else "torch sees no CUDA device here"
        smaller = " or a smaller number" if count else ""
        remedy = f"set 'device: cpu'{smaller}"
        raise HparamsError(f"field 'device': {device!r} means {target}, but {here}; {remedy}")
    return target


def load_model(hparams) -> tuple[torch.nn.Module, Any, torch.device]:
    """Model in eval mode on its device, tokenizer, and the device of ``hparams``.

    ``hparams.model_name`` is the name of a shipped or fetched model (``tiny-llama``,
    ``smollm2-135m-instruct``), a folder or hub name, a GGUF file, or a pair ``(model, tokenizer)``, which is
    used as it is. Weights are float16 with ``fp16``, bfloat16 with ``bf16``,
    else float32; with ``load_in_4bit`` all but the edited blocks are in 4 bits (``four_bit_options``). A
    tokenizer loaded here without a pad token gets the end-of-text token.
    """
    device = target_device(getattr(hparams, "device", None))
    name, parallel = hparams.model_name, bool(getattr(hparams, "model_parallel", False))
    if isinstance(name, str):
        options = dtype_option(_model_dtype(hparams))
        if getattr(hparams, "load_in_4bit", False):
            options |= four_bit_options(name, hparams, _model_dtype(hparams), device)
        if parallel:
            options["device_map"] = "auto"
        model, tok = _from_pretrained(name, options)
        keep_layout(model)
    elif isinstance(name, (tuple, list)) and len(name) == 2:
        model, tok = name
    else:
        problem = f"must be a path, a hub name or a pair (model, tokenizer), not {type(name).__name__}"
        raise HparamsError(f"field 'model_name': {problem}")
    if getattr(model.config, "is_encoder_decoder", False):
        reason = "the methods here edit decoder-only models"
        raise HostError(f"model type {model.config.model_type!r} is an encoder-decoder; {reason}")
    if not parallel and not is_quantised(model):
        model.to(device)
    return model, tok, device


def _model_dtype(hparams) -> torch.dtype:
    fp16, bf16 = getattr(hparams, "fp16", False), getattr(hparams, "bf16", False)
    if fp16 and bf16:
        raise HparamsError("fields 'fp16' and 'bf16' are both set; choose one")
    return torch.float16 if fp16 else torch.bfloat16 if bf16 else torch.float32


def dtype_option(dtype) -> dict[str, Any]:
    """The argument of ``from_pretrained`` for a dtype, renamed in transformers 4.56."""
    import transformers

    major, minor = (int(part) for part in transformers.__version__.split(".")[:2])
    return {"dtype" if (major, minor) >= (4, 56) else "torch_dtype": dtype}


def _from_pretrained(name: str, options: dict[str, Any]):
    import transformers

    resources.require_model(name)
    path = resources.model_path(name)
    LOG.info("loading model %s", path)
    if is_gguf(path):
        model, tok = load_gguf(path, **options)
    else:
        try:
            options["output_loading_info"] = True
            model, info = transformers.AutoModelForCausalLM.from_pretrained(path, **options)
            tok = transformers.AutoTokenizer.from_pretrained(path)
            tok("It reads this.")  # some fail at the first text only
        except Exception as error:  # whatever transformers raises about files of others
            raise HostError(f"model_name {name!r} cannot be loaded: {error}") from error
        if info["missing_keys"]:  # which transformers has filled with random numbers
            absent = ", ".join(sorted(info["missing_keys"])[:3])
            raise HostError(
                f"model_name {name!r}: its files lack {len(info['missing_keys'])} weights: {absent}"
            )
    if tok.pad_token is None:
        tok.pad_token = tok.eos_token
    return model.eval(), tok
