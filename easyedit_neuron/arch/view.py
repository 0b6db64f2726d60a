"""One model seen through the architecture table: modules and matrices by layer number."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import ArchitectureError
from .describe import MODULE_FIELDS, architecture_of, text_config
from .norms import NormParameters, detect_norm, norm_parameters
from .plain_model import is_bitsandbytes, require_plain
from .table import Architecture

HALF = (torch.float16, torch.bfloat16)
"""Dtypes in which small probabilities and steps vanish."""


class ModelView:
    """Access to a causal language model's parts by layer number. Create it with ``ModelView.of``.

    Holds no copies: modules and matrices are the model's, on its devices and in its dtypes.

    Attributes:
        model: the model itself.
        arch: its ``Architecture`` with overrides applied and ``parallel_residual`` resolved to a bool.
        config: that of the model, or of its text part where it sees pictures too.
        n_layers, d_model, d_ff, vocab_size: sizes, read from the weights.
        logit_softcap: ``c`` of ``c * tanh(logits / c)``, or ``None``.
        logit_scale: factor of the logits, in front of a soft cap; 1 for most models.
        ffn_multiplier: factor of what an FFN adds to the residual stream; 1 for most models.
    """

    def __init__(self, model: nn.Module, arch: Architecture):
        self.model = model
        self.arch = replace(arch, lm_head_module=self._first_name(arch.lm_head_module))
        self.config = text_config(model)
        self.n_layers = self._count_layers()
        self._check_modules()
        weight, _ = self.unembedding()
        self.vocab_size, self.d_model = weight.shape
        self.d_ff = self._check_down_matrices()
        self.logit_softcap: float | None = getattr(self.config, "final_logit_softcapping", None)
        self.logit_scale = self._factor(arch.logit_multiplier) / self._factor(arch.logit_divisor)
        self.ffn_multiplier = self._factor(arch.ffn_multiplier)

    @classmethod
    def of(cls, model: nn.Module, **overrides) -> ModelView:
        """View of ``model`` with the table's entry for ``model.config.model_type``.

        Args:
            model: a causal language model of transformers.
            **overrides: fields of ``Architecture``. ``None`` keeps the table's entry; ``projections`` adds to
                the table's.

        Raises:
            ArchitectureError: a model that is compiled, quantised or wrapped (``require_plain``); an unknown
                architecture of which not all modules are named by hand; a module
                that the model does not have (the message names the field); a weight that cannot be edited; a
                config of a form that the table's entry does not describe.
        """
        require_plain(model)
        return cls(model, architecture_of(model, overrides))

    def layer(self, layer: int) -> nn.Module:
        """Transformer block ``layer``."""
        return self._at("layer_module_tmp", layer)

    def mlp(self, layer: int) -> nn.Module:
        """FFN of a layer."""
        return self._at("mlp_module_tmp", layer)

    def attn(self, layer: int) -> nn.Module:
        """Self-attention of a layer."""
        return self._at("attn_module_tmp", layer)

    def attn_branch(self, layer: int) -> nn.Module:
        """Module whose output is added to the residual stream as the attention's branch."""
        return self._at("attn_branch_tmp" if self.arch.attn_branch_tmp else "attn_module_tmp", layer)

    def pre_ffn_norm(self, layer: int) -> nn.Module:
        """Norm in front of the FFN (absent from always-parallel blocks)."""
        return self._at("pre_ffn_norm_tmp", layer)

    def post_ffn_norm(self, layer: int) -> nn.Module | None:
        """Norm between FFN and residual stream, or ``None``."""
        return self._at("post_ffn_norm_tmp", layer) if self.arch.post_ffn_norm_tmp else None

    def down_proj(self, layer: int) -> nn.Module:
        """Down projection of an FFN: its weight is edited, its input are the neuron activations q."""
        return self._at("rewrite_module_tmp", layer)

    @property
    def final_norm(self) -> nn.Module:
        """Norm in front of the unembedding."""
        return self._get("ln_f_module", self.arch.ln_f_module)

    def down_weight_name(self, layer: int) -> str:
        """Name of the edited parameter in ``model.named_parameters()``."""
        self.layer(layer)  # refuses a layer that does not exist
        return self.arch.rewrite_module_tmp.format(layer) + ".weight"

    def down_matrix(self, layer: int) -> Tensor:
        """``W_down [d_model, d_ff]``, a view of the parameter: writing into it edits the model."""
        return self.matrix(self.down_weight_name(layer))

    def matrix(self, name: str) -> Tensor:
        """A weight by its name as ``W [d_out, d_in]``, or a bias as ``[d_out, 1]``; a view of the parameter.

        GPT-2's Conv1D stores its weight as ``[in, out]``; this is the one place that transposes it.

        Raises:
            ArchitectureError: no parameter of that name, one with another number of dimensions, or one that
                is quantised.
        """
        path, _, leaf = name.rpartition(".")
        try:
            parameter = self.model.get_parameter(name).detach()
        except AttributeError:
            raise ArchitectureError(
                f"the model ({type(self.model).__name__}) has no parameter {name!r}"
            ) from None
        if not parameter.is_floating_point():
            raise _quantised(name)
        if parameter.dim() == 1:
            return parameter[:, None]
        if parameter.dim() != 2:
            raise ArchitectureError(
                f"{name} has {parameter.dim()} dimensions where a matrix or a bias is expected"
            )
        return parameter.t() if leaf == "weight" and is_conv1d(self.model.get_submodule(path)) else parameter

    def down_bias(self, layer: int) -> Tensor | None:
        """Bias ``[d_model]`` of the down projection, or ``None``."""
        return bias_of(self.down_proj(layer))

    def post_ffn_norm_parameters(self, layer: int) -> NormParameters | None:
        """Parameters of the norm behind the FFN (gemma2), or ``None`` without such a norm.

        With it, neuron i adds ``gain * v_i / rms(FFN output)`` to the residual stream instead of ``v_i``.
        """
        norm = self.post_ffn_norm(layer)
        return None if norm is None else self._norm_parameters(norm)

    def ffn_branch(self, layer: int) -> Callable[[Tensor], Tensor] | None:
        """What the block makes of its FFN's output before it adds it to the residual stream.

        A norm (gemma2), a factor (granite), or ``None``: the output is added as it is.
        """
        norm, factor = self.post_ffn_norm(layer), self.ffn_multiplier
        if norm is not None or factor == 1.0:
            return norm
        return lambda ffn_out: factor * ffn_out

    def before_ffn_branch(self, layer: int, residual: Tensor, ffn_out: Tensor) -> Tensor:
        """What the FFN's output must gain for the block's output to gain ``residual``.

        The two differ if a factor (granite) or a norm (gemma2) lies between them. With
        ``N(f) = g f / s(f)`` (and an offset), ``N(f + s(f) r / g)`` has exactly the direction of
        ``N(f) + r``. Its length differs by the factor ``s((N(f) + r) / g)``, which no input of the norm can
        change and which is 1 for a small r. EasyEdit writes r itself, of which ``g / s(f)`` arrives.

        Args:
            layer: number of the layer.
            residual: r [d_model, n].
            ffn_out: f [d_model, n], the FFN's output now.
        """
        norm = self.post_ffn_norm_parameters(layer)
        if norm is None:
            return residual / self.ffn_multiplier
        gain, scale = norm.gain.to(residual)[:, None], norm.scale(ffn_out.T.to(residual))
        # A dimension that the norm does not let through cannot be written.
        passes = gain.abs() > 1e-4 * gain.abs().max()
        return torch.where(passes, residual * scale / gain, torch.zeros_like(residual))

    def final_norm_parameters(self) -> NormParameters:
        """Parameters of the final norm."""
        return self._norm_parameters(self.final_norm)

    def unembedding(self) -> tuple[Tensor, Tensor | None]:
        """``(W [vocab_size, d_model], bias [vocab_size] or None)`` of the unembedding."""
        head = self._get("lm_head_module", self.arch.lm_head_module)
        if is_bitsandbytes(head):
            raise _quantised(self.arch.lm_head_module)
        return head.weight.detach(), bias_of(head)

    def logits(self, hidden: Tensor, softcap: bool = True) -> Tensor:
        """The model's logits ``[..., vocab_size]`` for inputs ``[..., d_model]`` of its final norm.

        Args:
            hidden: input of the final norm.
            softcap: whether to apply the model's soft cap.

        Returns:
            Logits in ``compute_dtype``.
        """
        weight, bias = self.unembedding()
        logits = functional.linear(self.final_norm(hidden).to(weight.device, weight.dtype), weight, bias)
        logits = logits if self.logit_scale == 1.0 else logits * self.logit_scale
        return (self.softcap(logits) if softcap else logits).to(self.compute_dtype)

    def softcap(self, logits: Tensor) -> Tensor:
        """Apply the model's final soft cap; the identity for a model without one."""
        cap = self.logit_softcap
        return logits if cap is None else cap * torch.tanh(logits / cap)

    def device_of(self, layer: int) -> torch.device:
        """Device of the layer's edited weight."""
        return self.down_proj(layer).weight.device

    @property
    def compute_dtype(self) -> torch.dtype:
        """float64 for a float64 model, else float32. Half precision is for weights, not for results."""
        return torch.promote_types(
            self.model.get_submodule(self.arch.lm_head_module).weight.dtype, torch.float32
        )

    @property
    def input_device(self) -> torch.device:
        """Device on which the model expects ``input_ids``."""
        return self.model.get_input_embeddings().weight.device

    def _norm_parameters(self, norm: nn.Module) -> NormParameters:
        return norm_parameters(norm, self.arch.norm or detect_norm(norm))

    def check_layer(self, layer: int) -> None:
        """Raise ``ArchitectureError`` unless the model has the layer."""
        if not isinstance(layer, int) or isinstance(layer, bool) or not 0 <= layer < self.n_layers:
            raise ArchitectureError(
                f"layer {layer!r} does not exist: the model has layers 0 to {self.n_layers - 1}"
            )

    def _at(self, field: str, layer: int) -> nn.Module:
        names = getattr(self.arch, field).replace("{}", str(layer))
        try:
            return self.model.get_submodule(self._first_name(names))
        except AttributeError:
            self.check_layer(layer)
            raise self._no_module(field, names) from None

    def _get(self, field: str, name: str) -> nn.Module:
        try:
            return self.model.get_submodule(name)
        except AttributeError:
            raise self._no_module(field, name) from None

    def _first_name(self, names: str) -> str:
        """The first of names between ``|`` that the model has a module for; all of them where it has none."""
        for name in names.split("|"):
            with suppress(AttributeError):
                self.model.get_submodule(name)
                return name
        return names

    def _no_module(self, field: str, name: str) -> ArchitectureError:
        return ArchitectureError(
            f"{field}: the model ({type(self.model).__name__}) has no module {name!r}; "
            "name it as model.named_modules() does"
        )

    def _factor(self, field: str | None) -> float:
        return 1.0 if field is None else float(getattr(self.config, field))

    def _count_layers(self) -> int:
        container, brace, rest = self.arch.layer_module_tmp.partition(".{}")
        if not brace or rest:
            raise ArchitectureError(f"layer_module_tmp: {self.arch.layer_module_tmp!r} must end in '.{{}}'")
        count = len(list(self._get("layer_module_tmp", container).children()))
        if not count:
            raise ArchitectureError(f"layer_module_tmp: module {container!r} holds no layers")
        return count

    def _check_modules(self) -> None:
        # Look up every module in the first and the last layer, so that a misspelt name shows before any work.
        for field in MODULE_FIELDS:
            name = getattr(self.arch, field)
            if name is None:
                continue
            if field.endswith("_tmp"):
                self._at(field, 0), self._at(field, self.n_layers - 1)
            else:
                self._get(field, name)

    def _check_down_matrices(self) -> int:
        # A model of a config alone is looked at (easyedit-neuron arch); one that is offloaded in part is not
        # whole.
        is_skeleton = all(parameter.is_meta for parameter in self.model.parameters())
        widths: tuple[int, int] | None = None
        for layer in range(self.n_layers):
            module = self.down_proj(layer)
            weight = getattr(module, "weight", None)
            name = self.down_weight_name(layer)
            if is_bitsandbytes(module):
                continue  # what matters is whether this layer is edited: ``matrix`` refuses it
            if weight is None or weight.dim() != 2 or not weight.is_floating_point():
                raise ArchitectureError(
                    f"rewrite_module_tmp: {name} is not a floating-point matrix, so it cannot be edited in "
                    "place; load the model unquantised (float32, bfloat16 or float16)"
                )
            if weight.is_meta and not is_skeleton:
                raise ArchitectureError(
                    f"{name} is offloaded (meta device); load the model into memory to edit it"
                )
            widths = widths or tuple(self.down_matrix(layer).shape)
        rows, d_ff = widths or (self.down_proj(0).out_features, self.down_proj(0).in_features)
        if rows != self.d_model:
            raise ArchitectureError(
                f"rewrite_module_tmp: {self.down_weight_name(0)} writes {rows} numbers where the residual "
                f"stream has {self.d_model}; name the FFN's down projection"
            )
        return d_ff


def _quantised(name: str) -> ArchitectureError:
    return ArchitectureError(
        f"{name} is quantised, and the methods need its numbers. Load the model with the head and the blocks "
        "that are edited as they are: load_in_4bit with these 'layers', or llm_int8_skip_modules of a "
        "BitsAndBytesConfig"
    )


def bias_of(module: nn.Module) -> Tensor | None:
    """Bias of a module, detached, or ``None``."""
    bias = getattr(module, "bias", None)
    return None if bias is None else bias.detach()


def is_conv1d(module: nn.Module) -> bool:
    """Whether a module is GPT-2's linear layer, whose weight is ``[in, out]``."""
    # By class name: transformers has moved the class, and an adapter may subclass it.
    return any(base.__name__ == "Conv1D" for base in type(module).__mro__)


@contextmanager
def frozen_parameters(model: nn.Module):
    """Switch off the gradients of all parameters inside the block; restore every flag afterwards."""
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


@contextmanager
def eval_mode(model: nn.Module):
    """Switch off dropout inside the block; restore the training flag of every submodule afterwards."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
