"""The hyperparameters that all methods share: which model, where, and the names of its modules."""

from dataclasses import dataclass
from typing import ClassVar

from .base import HyperParams
from .options import doc, require

__all__ = ["MODULE_FIELDS", "ModelHyperParams", "doc", "require"]

MODULE_FIELDS = (
    "rewrite_module_tmp",
    "layer_module_tmp",
    "mlp_module_tmp",
    "attn_module_tmp",
    "ln_f_module",
    "lm_head_module",
)


def _module(part: str):
    return doc(f"{part}; unset: from the architecture table", None)


@dataclass(kw_only=True)
class ModelHyperParams(HyperParams):
    """Model, device and module names, with EasyEdit's field names.

    ``NEEDS_SUBJECT``: the method refuses a request without a subject. Editors check it before the first edit.
    """

    NEEDS_SUBJECT: ClassVar[bool] = True

    alg_name: str = doc("name of the method")
    model_name: str = doc("path or hub name of the model; 'tiny-llama' is the one that ships")
    device: int | str = doc("'cpu', 'cuda:0', or an integer for that CUDA device", 0)
    model_parallel: bool = doc("load with device_map='auto'", False)
    fp16: bool = doc("load the model in float16", False)
    bf16: bool = doc("load the model in bfloat16 (built-in host)", False)
    max_length: int = doc("longest prompt in tokens, evaluation only", 40)
    batch_size: int = doc("requests that are edited together", 1)
    seed: int = doc("seed of everything random in the method", 0)

    rewrite_module_tmp: str | None = _module("template of the FFN's down projection")
    layer_module_tmp: str | None = _module("template of a layer")
    mlp_module_tmp: str | None = _module("template of the FFN")
    attn_module_tmp: str | None = _module("template of the attention")
    ln_f_module: str | None = _module("final norm")
    lm_head_module: str | None = _module("unembedding")

    def validate(self) -> None:
        """Check the ranges of the shared fields."""
        super().validate()
        self.require_positive("batch_size", "max_length")
        self.require_not_negative("seed")

    def check_inputs(self) -> None:
        """Check that the files the method will read exist; called before a model is loaded. Default: none.

        Raises:
            NeuronEditError: names the field and the remedy.
        """

    def module_overrides(self) -> dict[str, str | None]:
        """The module names that were set by hand, for ``ModelView.of``."""
        return {name: getattr(self, name) for name in MODULE_FIELDS if getattr(self, name) is not None}
