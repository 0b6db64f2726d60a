"""The description of one model: the table's entry, or names by hand, resolved with the model's config."""

from dataclasses import fields, replace

from torch import nn

from ..errors import ArchitectureError
from ..utils.suggest import did_you_mean
from .table import ARCHITECTURES, REQUIRED_FIELDS, TEXT_PARTS, Architecture

OVERRIDES = tuple(field.name for field in fields(Architecture) if field.name != "model_type")
MODULE_FIELDS = tuple(name for name in OVERRIDES if name.endswith(("_tmp", "_module")))


def architecture_of(model: nn.Module, overrides: dict) -> Architecture:
    """The model's architecture with ``parallel_residual`` resolved to a bool.

    Args:
        model: a causal language model of transformers.
        overrides: as those of ``ModelView.of``.

    Raises:
        ArchitectureError: an unknown field; an unknown architecture of which not all modules are named; a
            config of a form that the table's entry does not describe.
    """
    overrides = {name: _clean(name, value) for name, value in overrides.items()}
    arch = _entry_or_names(model, {n: value for n, value in overrides.items() if value is not None})
    config = text_config(model)
    _check_config(arch, config)
    flag = arch.parallel_residual
    parallel = bool(getattr(config, flag, True)) if isinstance(flag, str) else flag
    if not parallel and arch.pre_ffn_norm_tmp is None:
        raise ArchitectureError(
            "pre_ffn_norm_tmp is unset: name the norm in front of the FFN, or set parallel_residual=True "
            "for a block whose attention and FFN read the same input"
        )
    if parallel and isinstance(flag, str):  # a norm of the sequential form, which may not exist
        arch = replace(arch, pre_ffn_norm_tmp=None)
    return replace(arch, parallel_residual=parallel)


def text_config(model: nn.Module):
    """The config of a model's text part: the model's own, but for models with pictures."""
    config = model.config
    return config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config


def entry_of(model: nn.Module) -> Architecture | None:
    """The table's entry for a model, or for its text part; None without one."""
    return ARCHITECTURES.get(_model_type(model)) or _text_part(model)


def has_experts(model: nn.Module) -> bool:
    """Whether FFNs of a model are mixtures of experts."""
    return any(
        name.endswith(".experts") or "experts" in type(module).__name__.lower()
        for name, module in model.named_modules()
    )


def _clean(field: str, value):
    if field not in OVERRIDES:
        raise ArchitectureError(
            f"unknown field {field!r} of an architecture: {did_you_mean(field, OVERRIDES)}"
        )
    if value is None or field not in MODULE_FIELDS:
        return value
    if not isinstance(value, str):
        raise ArchitectureError(f"{field}: expected a module name, got {value!r}")
    value = value.removesuffix(".weight")  # EasyEdit's FT hyperparameters end their template so
    if field.endswith("_tmp") and value.count("{}") != 1:
        raise ArchitectureError(f"{field}: {value!r} must hold '{{}}' once, in place of the layer number")
    return value


def _model_type(model: nn.Module) -> str | None:
    return getattr(getattr(model, "config", None), "model_type", None)


def _entry_or_names(model: nn.Module, overrides: dict) -> Architecture:
    model_type, entry = _model_type(model), entry_of(model)
    if entry is not None:
        projections = {**entry.projections, **overrides.get("projections", {})}
        return replace(entry, **{**overrides, "projections": projections})
    missing = [name for name in REQUIRED_FIELDS if name not in overrides]
    if missing and has_experts(model):
        raise ArchitectureError(
            f"model_type {model_type!r} has experts in its FFNs, so that a layer has no single down "
            "projection; it cannot be edited"
        )
    if missing:
        raise ArchitectureError(
            f"no entry for model_type {model_type!r} (known: {', '.join(sorted(ARCHITECTURES))}). Name its "
            f"modules by hand: {', '.join(REQUIRED_FIELDS)} (names in _tmp are templates with '{{}}' for the "
            "layer), and pre_ffn_norm_tmp or parallel_residual=True; norm, post_ffn_norm_tmp and "
            f"attn_branch_tmp where they differ. Missing now: {', '.join(missing)}"
        )
    return Architecture(model_type=model_type or "unknown", **overrides)


def _text_part(model: nn.Module) -> Architecture | None:
    """The entry of the text part of a model with pictures, whose names begin one level deeper."""
    config = getattr(model, "config", None)
    text = None if config is None else text_config(model)
    text_type = None if text is config else text.model_type
    entry = ARCHITECTURES.get(TEXT_PARTS.get(text_type, text_type))
    if entry is None or not any(name == "model.language_model" for name, _ in model.named_modules()):
        return None

    def deeper(name: str) -> str:
        return name.replace("model.", "model.language_model.")

    names = {field: getattr(entry, field) for field in MODULE_FIELDS}
    names = {field: deeper(name) for field, name in names.items() if name}
    projections = {name: deeper(module) for name, module in entry.projections.items()}
    return replace(entry, projections=projections, **names)


def _check_config(arch: Architecture, config) -> None:
    for name, needed in arch.needs.items():
        value = getattr(config, name, needed)
        if isinstance(needed, str):
            needed = getattr(config, needed)
        if value != needed:
            raise ArchitectureError(
                f"this {arch.model_type} model cannot be edited: its config says {name} = {value}, and only "
                f"blocks with {name} = {needed} are supported"
            )
