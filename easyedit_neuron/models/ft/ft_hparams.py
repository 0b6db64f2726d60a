"""Hyperparameters of the fine-tuning baselines, with EasyEdit's field names."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal, Optional, Union

from ...errors import HparamsError
from ...hparams_base import HyperParams


def _doc(text: str, default=...):
    metadata = {"help": text}
    return field(metadata=metadata) if default is ... else field(default=default, metadata=metadata)


@dataclass
class FTHyperParams(HyperParams):
    """EasyEdit's files load as they are; module templates may also be left out."""

    ALG_NAME: ClassVar[str] = "FT"

    alg_name: str = _doc("name of the method")
    model_name: str = _doc("path or hub name of the model; 'tiny-llama' is the one that ships")
    layers: list[int] = _doc("layers whose weight is trained")
    num_steps: int = _doc("Adam steps at most")
    lr: float = _doc("learning rate")

    objective_optimization: Literal["prompt_last", "target_new"] = _doc(
        "prompt_last: every target token is predicted from the prompt's last token (FT-L); target_new: cross-entropy of the target "
        "after the prompt (FT-M)", "prompt_last")
    weight_decay: float = _doc("Adam's L2 term", 0.0)
    kl_factor: float = _doc("EasyEdit's field; its FT does not read it either", 0.0)
    norm_constraint: Union[bool, float] = _doc("largest change of any single weight; false: none", False)
    target_special_tokens: bool = _doc(
        "prompt_last: the target is tokenised with special tokens, as EasyEdit does, so that a BOS token is trained as a "
        "target where the tokenizer adds one; false: the target's own tokens only", True)

    device: Union[int, str] = _doc("'cpu', 'cuda:0', or an integer for that CUDA device", 0)
    model_parallel: bool = _doc("load with device_map='auto'", False)
    fp16: bool = _doc("load the model in float16", False)
    bf16: bool = _doc("load the model in bfloat16 (built-in host)", False)
    max_length: int = _doc("longest prompt in tokens, evaluation only", 40)
    batch_size: int = _doc("requests per Adam step", 64)

    rewrite_module_tmp: Optional[str] = _doc("template of the trained weight; unset: the down projection of the architecture table", None)
    layer_module_tmp: Optional[str] = _doc("EasyEdit's field; not read", None)
    mlp_module_tmp: Optional[str] = _doc("EasyEdit's field; not read", None)
    attn_module_tmp: Optional[str] = _doc("EasyEdit's field; not read", None)
    ln_f_module: Optional[str] = _doc("EasyEdit's field; not read", None)
    lm_head_module: Optional[str] = _doc("EasyEdit's field; not read", None)

    def validate(self) -> None:
        """Ranges, with the field's name in the error."""
        for name in ("num_steps", "lr", "batch_size", "max_length"):
            if getattr(self, name) <= 0:
                raise HparamsError(f"field '{name}': must be greater than 0, got {getattr(self, name)}")
        if not self.layers or min(self.layers) < 0 or len(set(self.layers)) != len(self.layers):
            raise HparamsError(f"field 'layers': must be a non-empty list of different layer numbers, got {self.layers}")
        if self.norm_constraint is not False and (self.norm_constraint is True or self.norm_constraint <= 0):
            raise HparamsError(f"field 'norm_constraint': must be false (none) or greater than 0, got {self.norm_constraint}")
        if self.weight_decay < 0:
            raise HparamsError(f"field 'weight_decay': must not be negative, got {self.weight_decay}")
        if self.rewrite_module_tmp is not None and self.rewrite_module_tmp.count("{}") != 1:
            raise HparamsError("field 'rewrite_module_tmp': must hold '{}' exactly once, for the layer's number")
